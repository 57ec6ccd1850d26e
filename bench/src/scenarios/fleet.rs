//! A large fleet: 100,000 sessions are registered, their agents send 5,000 heartbeats a second on schedule, and one
//! renter's connections ask as fast as they can.
//!
//! Each round measures the requests alone, the heartbeats alone, and both together: what heartbeats take from the data
//! plane is the difference. Once with the proxy's core for the whole gateway, as every peer has it; once with both cores, of
//! which the load has its part; and once with both where the proxy has the first to itself (`gateway.cores`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load;
use crate::machine::Allowed;
use crate::measure::{Effort, Metric, Samples, Tally, Turn, note_units};
use crate::peer::{Demands, House, Kind, Peer, credential};
use crate::process::Process;
use crate::runit::Rented;
use crate::scenarios::sessions::register;
use crate::schedule::{self, Pace};

const SESSIONS: u64 = 100_000;
const HEARTBEATS: Pace = Pace { per_second: 5_000, connections: 64 };
const RENTERS_CONNECTIONS: usize = 32;
const SMALL: &str = "/bytes/1024";
const PLACES: [(Allowed, &str); 3] =
    [(Allowed::ProxyAlone, "one core"), (Allowed::Both, "two cores, shared"), (Allowed::Apart, "two cores, apart")];
/// Long enough for several rounds of the sweeper, which writes heartbeats.
const TURNS: u32 = 5;

/// Measures it.
///
/// # Errors
/// When the gateway cannot be started, or a call fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let mut samples = Vec::new();
    for (cores, name) in PLACES {
        samples.extend(measure(house, effort, cores, name).await?);
    }
    Ok(samples)
}

async fn measure(house: &House, effort: Effort, cores: Allowed, name: &str) -> Result<[Samples; 4]> {
    let sessions = SESSIONS / effort.shrink;
    let pace = Pace { per_second: HEARTBEATS.per_second / u32::try_from(effort.shrink)?, ..HEARTBEATS };
    let turn = effort.turn * TURNS;
    let peer = Peer::start(Kind::Runit, house, Demands { cores, ..Demands::default() }).await?;
    let runit = peer.runit.clone().context("it is RUNIT")?;
    let memory = || peer.process.as_ref().map(Process::memory).unwrap_or(0);
    let before = memory();
    let registered = register(&runit, house.upstream, sessions, false).await?;

    let heartbeats: Arc<[Vec<u8>]> = registered.iter().map(heartbeat).collect();
    // Each agent's turn comes after all others', whatever is measured meanwhile.
    let turns = Arc::new(AtomicUsize::new(0));
    let beat = || {
        let (heartbeats, turns, address) = (Arc::clone(&heartbeats), Arc::clone(&turns), runit.control);
        async move {
            let request = move |_| heartbeats[turns.fetch_add(1, Ordering::Relaxed) % heartbeats.len()].clone();
            // The upstream is on this thread's runtime.
            tokio::task::spawn_blocking(move || schedule::keep(address, pace, turn, request)).await?
        }
    };
    let ask = || load::kept(&peer.way, None, RENTERS_CONNECTIONS, SMALL, turn);

    let names = ["requests alone", "heartbeats alone", "requests beside heartbeats", "heartbeats beside requests"];
    let mut samples = names.map(|what| Samples::of(format!("{what}, {name}")));
    for round in 0..=effort.rounds {
        let alone = timed(&peer, ask()).await?;
        let quiet = timed(&peer, beat()).await?;
        let (cpu, start) = (peer.cpu(), Instant::now());
        let (asked, beaten) = tokio::try_join!(ask(), beat())?;
        let both = spent(&peer, cpu, start);
        if round == 0 {
            continue;
        }
        note_units(&mut samples[0], &alone.0, &alone.1);
        note_units(&mut samples[1], &quiet.0, &quiet.1);
        // Processor time of both cannot be told apart.
        let together = Turn { cpu: None, ..both };
        note_units(&mut samples[2], &asked, &together);
        note_units(&mut samples[3], &beaten, &together);
        samples[2].note(Metric::Held, rate(&asked, both.took) / rate(&alone.0, alone.1.took) * 100.0);
    }
    // At last: what registering them took besides has been given back.
    let each = memory().saturating_sub(before) as f64 / 1024.0 / sessions as f64;
    samples[1].note(Metric::Memory, each);
    Ok(samples)
}

async fn timed(peer: &Peer, work: impl Future<Output = Result<Tally>>) -> Result<(Tally, Turn)> {
    let (cpu, start) = (peer.cpu(), Instant::now());
    let tally = work.await?;
    Ok((tally, spent(peer, cpu, start)))
}

fn spent(peer: &Peer, cpu: Option<Duration>, start: Instant) -> Turn {
    let took = start.elapsed();
    Turn { took, cpu: peer.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before)) }
}

fn rate(tally: &Tally, took: Duration) -> f64 {
    tally.done as f64 / took.as_secs_f64()
}

/// What an agent tells of its container.
const REPORT: &str = r#"{"egressBytes":1234567,"egressCapBytes":1000000000,"egressCut":false,"busy":"a kernel is busy","idleSeconds":0,"millicores":250,"memoryBytes":3900000000,"processes":20,"limits":{"millicores":2000,"memoryBytes":8000000000,"processes":512},"killedForMemory":0}"#;

/// An agent's heartbeat, as bytes.
fn heartbeat(session: &Rented) -> Vec<u8> {
    let body = format!("{{\"sessionId\":\"{}\",\"reachable\":true,\"report\":{REPORT}}}", session.id);
    let bearer = credential(&session.secret).replace("token ", "Bearer ");
    format!(
        "POST /provider/heartbeat HTTP/1.1\r\nHost: control\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{bearer}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
