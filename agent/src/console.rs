//! The lines that a provider sees on standard output. Their texts are an interface: scripts wait for them.
//!
//! Answers for what is said and how it is spelt. Diagnostics go to standard error by `tracing`, not through here.
//! Invariant: no line can hold a token or secret, since none is passed in.

use std::fmt;
use std::io::Write;

use runit_core::SessionId;

/// One line on standard output.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the texts in `Display` say what each line means")]
pub enum Line<'a> {
    CheckingImage { image: &'a str },
    ImageExists,
    BuildingImage { image: &'a str },
    BuildStep { step: &'a str },
    ImageBuilt,
    WorkspaceDirectory { directory: &'a str },
    StartingJupyter,
    RunningAs { user: &'a str },
    StartingCloudflared,
    PublicUrl { url: &'a str },
    SessionReady,
    SessionRegistered { id: SessionId },
    HeartbeatUpdated { id: SessionId },
    TunnelUpdated { id: SessionId },
    Recycling,
    ContainerStopped,
    TunnelLost,
    Asleep,
    Waking,
    OutOfMemory,
    EgressCut,
    EgressOpen,
    Stopping,
    Stopped,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckingImage { image } => write!(f, "[agent] checking docker image: {image}"),
            Self::ImageExists => f.write_str("[agent] docker image exists"),
            Self::BuildingImage { image } => write!(f, "[agent] building docker image: {image}"),
            Self::BuildStep { step } => write!(f, "[docker] {step}"),
            Self::ImageBuilt => f.write_str("[agent] docker image built"),
            Self::WorkspaceDirectory { directory } => write!(f, "[agent] workspace directory: {directory}"),
            Self::StartingJupyter => f.write_str("[agent] starting dockerized jupyter..."),
            Self::RunningAs { user } => write!(f, "[docker] Running as: {user}"),
            Self::StartingCloudflared => f.write_str("[agent] starting cloudflared..."),
            Self::PublicUrl { url } => write!(f, "[agent] detected public URL: {url}"),
            Self::SessionReady => f.write_str("=== SESSION READY ==="),
            Self::SessionRegistered { id } => write!(f, "[agent] session registered: {id}"),
            Self::HeartbeatUpdated { id } => write!(f, "[agent] heartbeat updated for: {id}"),
            Self::TunnelUpdated { id } => write!(f, "[agent] tunnel updated for: {id}"),
            Self::Recycling => f.write_str("[agent] replacing the workspace..."),
            Self::ContainerStopped => f.write_str("[agent] jupyter stopped, starting it again"),
            Self::TunnelLost => f.write_str("[agent] tunnel lost, opening another"),
            Self::Asleep => f.write_str("[agent] jupyter stopped, since nobody uses it; the next renter starts it"),
            Self::Waking => f.write_str("[agent] jupyter is wanted, starting it"),
            Self::OutOfMemory => f.write_str("[docker] a process was killed: the container's memory is used up"),
            Self::EgressCut => f.write_str("[agent] the daily cap is used up: the container is cut off from the world"),
            Self::EgressOpen => f.write_str("[agent] the container reaches the world again"),
            Self::Stopping => f.write_str("[agent] stopping..."),
            Self::Stopped => f.write_str("[agent] stopped"),
        }
    }
}

/// Writes one line to standard output. A closed output is no reason to stop serving a renter, so errors are dropped.
pub fn say(line: Line<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Writes an answer to standard output, as its own line or lines.
pub fn print(text: &str) {
    print_raw(&format!("{text}\n"));
}

/// Writes text to standard output as it is.
pub fn print_raw(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_scripts_wait_for_are_spelt_as_ever() {
        let id: SessionId = "6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11".parse().expect("an id");
        let said = [
            Line::CheckingImage { image: "runit-jupyter" },
            Line::ImageExists,
            Line::WorkspaceDirectory { directory: "runit-session-0011aabb" },
            Line::StartingJupyter,
            Line::RunningAs { user: "jupyteruser" },
            Line::StartingCloudflared,
            Line::PublicUrl { url: "https://a-b.trycloudflare.com" },
            Line::SessionReady,
            Line::SessionRegistered { id },
            Line::HeartbeatUpdated { id },
        ]
        .map(|line| line.to_string());
        assert_eq!(
            said,
            [
                "[agent] checking docker image: runit-jupyter",
                "[agent] docker image exists",
                "[agent] workspace directory: runit-session-0011aabb",
                "[agent] starting dockerized jupyter...",
                "[docker] Running as: jupyteruser",
                "[agent] starting cloudflared...",
                "[agent] detected public URL: https://a-b.trycloudflare.com",
                "=== SESSION READY ===",
                "[agent] session registered: 6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11",
                "[agent] heartbeat updated for: 6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11",
            ]
        );
    }
}
