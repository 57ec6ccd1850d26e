//! A page load of JupyterLab as a browser made it (`bench/record.py`): what the same load takes through each peer.
//!
//! The record keeps for each request after which other answer it was sent, and how long after: what a faster or slower way
//! changes moves everything that waited for it, as in a browser. The upstream takes as long for each answer as Jupyter
//! took. Six connections, as browsers have for one host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::client::Client;
use crate::measure::{Effort, Metric, Samples, Tally, Turn, rounds};
use crate::peer::{House, Peer, Way};
use crate::scenario::side_by_side;

const CONNECTIONS: usize = 6;
const RECORD: &str = include_str!("../../data/jupyterlab-page.json");

/// One request of the record.
#[derive(Debug, Clone, Deserialize)]
struct Recorded {
    path: String,
    /// Sent after that one was answered; the first waits for none.
    after: Option<usize>,
    /// So much later, in µs.
    gap_us: u64,
    /// How long Jupyter took, in µs.
    server_us: u64,
    /// Of the answer's body.
    bytes: u64,
}

/// Measures it.
///
/// # Errors
/// When a request fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let record: Arc<Vec<Recorded>> = Arc::new(serde_json::from_str(RECORD).context("the record")?);
    let turn = async |peer: &mut Peer| replay(&peer.way, &record).await;
    rounds(&mut side_by_side(house).await?, effort, turn, note).await
}

fn note(samples: &mut Samples, tally: &Tally, turn: &Turn) {
    samples.note(Metric::Load, turn.took.as_secs_f64() * 1e3);
    if let Some(cpu) = turn.cpu {
        samples.note(Metric::CpuMicros, cpu.as_secs_f64() * 1e6 / tally.done as f64);
    }
}

async fn replay(way: &Way, record: &[Recorded]) -> Result<Tally> {
    let idle = Mutex::new(Vec::new());
    let places = Semaphore::new(CONNECTIONS);
    let tally = Mutex::new(Tally::default());
    let (answered, watched): (Vec<_>, Vec<_>) = record.iter().map(|_| watch::channel(false)).unzip();
    let request = async |number: usize| -> Result<()> {
        let recorded = &record[number];
        if let Some(after) = recorded.after {
            watched[after].clone().wait_for(|&answered| answered).await?;
        }
        tokio::time::sleep(Duration::from_micros(recorded.gap_us)).await;
        let _place = places.acquire().await?;
        let kept = idle.lock().await.pop();
        let mut client = match kept {
            Some(client) => client,
            None => Client::connect(way, None).await?,
        };
        let Recorded { path, server_us, bytes, .. } = recorded;
        let path = format!("/replay/{bytes}/{}{path}", server_us.div_ceil(1_000));
        let start = Instant::now();
        let got = client.fetch(&client.get(&path, BROWSER)).await.with_context(|| path.clone())?;
        tally.lock().await.count(start, got);
        idle.lock().await.push(client);
        answered[number].send_replace(true);
        Ok(())
    };
    try_join_all((0..record.len()).map(request)).await?;
    Ok(tally.into_inner())
}

/// What Chromium sends with each.
const BROWSER: &str = "Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    Accept: */*\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n";
