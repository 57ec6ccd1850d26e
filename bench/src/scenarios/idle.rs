//! WebSockets on which nothing happens: what each costs in memory, and whether all of them are still there afterwards.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::iter;

use crate::client::{Client, message};
use crate::measure::{Effort, Metric, Samples};
use crate::peer::{Demands, House, Kind, Peer};
use crate::process::Process;
use crate::wire::Inbox;

const WEBSOCKETS: u64 = 8_000;
/// Opened at a time.
const AT_ONCE: usize = 64;
/// After the last one was opened; nothing is waited for, this is how long they are idle before anybody looks.
const HOLD: Duration = Duration::from_secs(3);
/// A fresh process each: what an allocator keeps of an earlier round would hide in the next.
const FULL_ROUNDS: usize = 3;

/// Measures it.
///
/// # Errors
/// When a WebSocket cannot be opened.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let kinds = house.kinds.iter().copied().filter(|&kind| kind != Kind::Direct);
    let mut samples: Vec<(Kind, Samples)> = kinds.map(|kind| (kind, Samples::of(kind.name()))).collect();
    for _ in 0..FULL_ROUNDS.min(effort.rounds) {
        for (kind, samples) in &mut samples {
            turn(house, *kind, WEBSOCKETS / effort.shrink, samples).await?;
        }
    }
    Ok(samples.into_iter().map(|(_, samples)| samples).collect())
}

async fn turn(house: &House, kind: Kind, count: u64, samples: &mut Samples) -> Result<()> {
    let peer = Peer::start(kind, house, Demands::default()).await?;
    // The first ones bring what any connection brings: threads, pools, a lease.
    drop(open(&peer, 64).await?);
    let memory = || peer.process.as_ref().map(Process::memory).context("a process");
    let before = memory()?;
    let mut clients = open(&peer, count).await?;
    tokio::time::sleep(HOLD).await;
    let after = memory()?;
    let mut held = 0_u32;
    let ping = message(8);
    for client in &mut clients {
        held += u32::from(client.echo(&ping, 8).await.is_ok());
    }
    samples.note(Metric::Memory, after.saturating_sub(before) as f64 / 1024.0 / count as f64);
    samples.note(Metric::Held, f64::from(held) / count as f64 * 100.0);
    Ok(())
}

async fn open(peer: &Peer, count: u64) -> Result<Vec<Client>> {
    let open = async |_| {
        let mut client = Client::connect_with(&peer.way, None, Inbox::new(512)).await?;
        client.open_websocket().await.with_context(|| peer.kind.name())?;
        client.echo(&message(8), 8).await?;
        anyhow::Ok(client)
    };
    let clients: Vec<Result<Client>> = iter(0..count).map(open).buffer_unordered(AT_ONCE).collect().await;
    clients.into_iter().collect()
}
