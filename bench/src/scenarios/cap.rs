//! A session's cap, reached by 16 downloads at once: how far beyond it the bytes go, and how soon they stop.
//!
//! Counted is what the client sent and received on connections that carried anything of the session; a refusal, which is
//! the proxy's own answer, is not.

use std::cell::Cell;
use std::time::Instant;

use anyhow::Result;
use futures::future::try_join_all;
use tokio::io::AsyncWriteExt;

use crate::client::Client;
use crate::measure::{Effort, Metric, Samples};
use crate::peer::{Demands, House, Kind, Way};
use crate::scenario::start;

const STREAMS: usize = 16;
const CAP: u64 = 64 << 20;
/// What each stream asks for, in parts, so that a rule that is asked before each answer gets its chance.
const PART: u64 = 4 << 20;

/// Measures it.
///
/// # Errors
/// When a peer cannot be started.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    // The other peers know no cap.
    let kinds = [Kind::Runit, Kind::Nginx, Kind::Haproxy];
    let mut peers = start(house, &kinds, Demands { cap_bytes: CAP, ..Demands::default() }).await?;
    let mut samples: Vec<Samples> = peers.iter().map(|peer| Samples::of(peer.kind.name())).collect();
    for _ in 0..effort.rounds {
        for (peer, samples) in peers.iter_mut().zip(&mut samples) {
            let (way, before) = peer.fresh_way(house.upstream).await?;
            let start = Instant::now();
            let moved = Cell::new(before);
            try_join_all((0..STREAMS).map(|_| stream(&way, &moved))).await?;
            let beyond = moved.get() as f64 - CAP as f64;
            samples.note(Metric::Overshoot, beyond / 1024.0);
            samples.note(Metric::CutAfter, start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(samples)
}

/// Asks for parts until one is refused.
async fn stream(way: &Way, moved: &Cell<u64>) -> Result<()> {
    for _ in 0..2 * CAP / PART {
        let mut client = Client::connect(way, None).await?;
        let request = client.get(&format!("/bytes/{PART}"), "Connection: close\r\n");
        client.wire.write_all(&request).await?;
        let (received, refused) = client.drain().await;
        if refused {
            return Ok(());
        }
        moved.set(moved.get() + request.len() as u64 + received);
    }
    anyhow::bail!("nothing was refused")
}
