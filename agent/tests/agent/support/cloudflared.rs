//! The stand-in for cloudflared, as a program in a directory of its own; or a real one, which `CLOUDFLARED_BIN` names.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runit_config::{Tunnel, TunnelKind};
use serde_json::Value;
use tempfile::TempDir;

/// One installed stand-in that behaves as `mode` says; see the example `stand-in-cloudflared`.
pub(crate) struct Cloudflared {
    directory: TempDir,
    is_real: bool,
}

impl Cloudflared {
    /// One that does what it should: the real one where there is one, which needs the Internet then.
    pub(crate) fn install_good() -> Self {
        match std::env::var("CLOUDFLARED_BIN") {
            Ok(program) => Self { is_real: true, ..Self::install(&format!("real:{program}")) },
            Err(_) => Self::install("good"),
        }
    }

    /// Whether names and times are Cloudflare's.
    pub(crate) fn is_real(&self) -> bool {
        self.is_real
    }

    pub(crate) fn install(mode: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let stand_in = Path::new(env!("CARGO_BIN_EXE_runit-agent")).with_file_name("examples/stand-in-cloudflared");
        assert!(stand_in.exists(), "{} is built with the tests: cargo test, cargo nextest", stand_in.display());
        let place = directory.path().display();
        let script = format!("#!/bin/sh\nexec '{}' '{mode}' '{place}' \"$@\"\n", stand_in.display());
        let program = directory.path().join("cloudflared");
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        Self { directory, is_real: false }
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("cloudflared")
    }

    pub(crate) fn settings(&self) -> Tunnel {
        Tunnel { kind: TunnelKind::Cloudflared, cloudflared_bin: self.program(), ..Tunnel::default() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// What it was started with last.
    pub(crate) fn seen(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.directory.path().join("seen.json")).ok()?).ok()
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        i32::try_from(self.seen()?["pid"].as_i64()?).ok()
    }
}

/// Whether a process is there and not merely waiting to be reaped.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z')))
}
