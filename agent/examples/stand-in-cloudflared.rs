//! A stand-in for cloudflared, for tests: `stand-in-cloudflared MODE DIRECTORY [what cloudflared would get...]`.
//!
//! Prints and serves what the real one does, as far as the agent looks at it, failures included. Refuses what was not
//! foreseen in cloudflared's own way: an unknown flag prints the usage and ends with status 0. What it was started with
//! is written to `DIRECTORY/seen.json`.
//!
//! The mode `real:PROGRAM` writes that down, too, and then becomes the program, a real cloudflared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, exit};
use std::time::{Duration, Instant};

const READY_AFTER: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, directory, rest @ ..] = &arguments[..] else { panic!("MODE and DIRECTORY are missing") };
    let real = mode.strip_prefix("real:");
    if real.is_none() && rest == ["--version"] {
        print_version(mode);
        return;
    }
    write_down(Path::new(directory), rest);
    if let Some(program) = real {
        panic!("{program}: {}", Command::new(program).args(rest).exec());
    }
    let flags = flags(rest);

    match mode.as_str() {
        "usage-error" => usage(),
        "rate-limited" => {
            say(
                r#"ERR Error unmarshaling QuickTunnel response: error code: 1015 error="invalid character" status_code="429 Too Many Requests""#,
            );
            exit(1);
        }
        "no-network" => {
            say(
                "failed to request quick Tunnel: Post \"https://api.trycloudflare.com/tunnel\": dial tcp: lookup failed",
            );
            exit(1);
        }
        "noisy" => {
            std::io::stderr().write_all(&vec![b'#'; 1 << 20]).expect("standard error");
        }
        _ => {}
    }

    let name = format!("stand-in-{}", std::process::id());
    say(&format!("|  https://{name}.trycloudflare.com  |"));
    let (mode_of_metrics, started) = (mode.clone(), Instant::now());
    let listener = TcpListener::bind(&flags["--metrics"]).expect("the metrics' address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &mode_of_metrics, &name, started.elapsed());
        }
    });

    if mode == "dies" {
        tokio::time::sleep(READY_AFTER * 4).await;
        exit(1);
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("a handler");
    while terminate.recv().await.is_some() {
        if mode != "stubborn" {
            exit(0);
        }
    }
}

#[expect(clippy::print_stdout, reason = "cloudflared prints its version there")]
fn print_version(mode: &str) {
    let version = if mode == "rewrites-paths" { "2026.8.1" } else { "2026.8.3" };
    if mode != "no-version" {
        println!("cloudflared version {version} (built 2026-09-01-1200 UTC)");
    }
}

fn write_down(directory: &Path, arguments: &[String]) {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let seen = serde_json::json!({
        "pid": std::process::id(), "arguments": arguments, "environment": environment,
    });
    std::fs::write(directory.join("seen.json"), seen.to_string()).expect("the directory");
}

/// The flags that the real one would take, each with a value.
fn flags(arguments: &[String]) -> BTreeMap<String, String> {
    let [command, rest @ ..] = arguments else { usage() };
    // `run` is a command of its own, with a flag of its own.
    let rest: Vec<&String> =
        rest.iter().filter(|argument| !["--no-autoupdate", "run"].contains(&argument.as_str())).collect();
    let known = ["--grace-period", "--protocol", "--metrics", "--url", "--token-file"];
    if command != "tunnel"
        || !rest.len().is_multiple_of(2)
        || rest.chunks(2).any(|pair| !known.contains(&pair[0].as_str()))
    {
        usage();
    }
    rest.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn usage() -> ! {
    say("Incorrect Usage: flag provided but not defined");
    exit(0);
}

fn serve(mut stream: TcpStream, mode: &str, name: &str, since: Duration) {
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() {
        return;
    }
    let ready = mode != "never-ready" && since > READY_AFTER;
    let (status, body) = match line.split(' ').nth(1) {
        Some("/quicktunnel") if mode == "renamed" && since > READY_AFTER * 4 => {
            ("200 OK", r#"{"hostname":"another-name.trycloudflare.com"}"#.to_owned())
        }
        Some("/quicktunnel") if mode == "named" => ("200 OK", r#"{"hostname":""}"#.to_owned()),
        Some("/quicktunnel") if mode == "foreign" => ("200 OK", r#"{"hostname":"evil.example"}"#.to_owned()),
        Some("/quicktunnel") => ("200 OK", format!(r#"{{"hostname":"{name}.trycloudflare.com"}}"#)),
        Some("/ready") if ready => ("200 OK", r#"{"status":200,"readyConnections":1}"#.to_owned()),
        Some("/ready") => ("503 Service Unavailable", r#"{"status":503,"readyConnections":0}"#.to_owned()),
        _ => ("404 Not Found", String::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // A client that went away is its own affair.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

#[expect(clippy::print_stderr, reason = "cloudflared says everything there")]
fn say(line: &str) {
    eprintln!("2026-11-22T09:00:00Z {line}");
}
