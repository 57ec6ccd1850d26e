//! Closed loops: each connection sends its next request when the last one is answered.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use tokio_rustls::TlsConnector;

use crate::client::{Client, message};
use crate::measure::Tally;
use crate::peer::Way;
use crate::wire::{CHUNK, Inbox};

/// Requests for `path` on kept connections.
///
/// # Errors
/// When a request fails.
pub(crate) async fn kept(
    way: &Way,
    tls: Option<&TlsConnector>,
    connections: usize,
    path: &str,
    turn: Duration,
) -> Result<Tally> {
    let tally = RefCell::new(Tally::default());
    let end = Instant::now() + turn;
    let connection = async || -> Result<()> {
        let mut client = Client::connect(way, tls).await?;
        let request = client.get(path, "");
        while Instant::now() < end {
            let start = Instant::now();
            let bytes = client.fetch(&request).await?;
            tally.borrow_mut().count(start, bytes);
        }
        Ok(())
    };
    try_join_all((0..connections).map(|_| connection())).await?;
    Ok(tally.into_inner())
}

/// Requests for `path`, each on a connection of its own, by a way that `draw` chooses.
///
/// # Errors
/// When a request fails.
pub(crate) async fn fresh(
    draw: impl Fn() -> Way,
    tls: Option<&TlsConnector>,
    connections: usize,
    path: &str,
    turn: Duration,
) -> Result<Tally> {
    let tally = RefCell::new(Tally::default());
    let end = Instant::now() + turn;
    let connection = async || -> Result<()> {
        while Instant::now() < end {
            let start = Instant::now();
            let mut client = Client::connect(&draw(), tls).await?;
            let bytes = client.fetch(&client.get(path, "Connection: close\r\n")).await?;
            tally.borrow_mut().count(start, bytes);
        }
        Ok(())
    };
    try_join_all((0..connections).map(|_| connection())).await?;
    Ok(tally.into_inner())
}

/// One download of so many bytes.
///
/// # Errors
/// When it fails.
pub(crate) async fn download(way: &Way, bytes: u64) -> Result<Tally> {
    let mut client = Client::connect_with(way, None, Inbox::new(CHUNK)).await?;
    let request = client.get(&format!("/bytes/{bytes}"), "");
    let start = Instant::now();
    let mut tally = Tally::default();
    let got = client.fetch(&request).await?;
    tally.count(start, got);
    Ok(tally)
}

/// One upload of so many bytes.
///
/// # Errors
/// When it fails.
pub(crate) async fn upload(way: &Way, bytes: u64) -> Result<Tally> {
    use tokio::io::AsyncWriteExt;
    const BODY: &[u8] = &[b'u'; CHUNK];
    let mut client = Client::connect(way, None).await?;
    let request = client.request("POST", "/upload", &format!("Content-Length: {bytes}\r\n"));
    let start = Instant::now();
    client.wire.write_all(&request).await?;
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        left -= client.wire.write(&BODY[..now]).await.context("while sending")? as u64;
    }
    client.answer().await?;
    let mut tally = Tally::default();
    tally.count(start, bytes);
    Ok(tally)
}

/// Messages of `payload` bytes on WebSockets that are open already, each sent when the last one came back.
///
/// # Errors
/// When an echo fails.
pub(crate) async fn echo(way: &Way, connections: usize, payload: u64, turn: Duration) -> Result<Tally> {
    let tally = RefCell::new(Tally::default());
    let message = message(payload);
    let end = Instant::now() + turn;
    let connection = async || -> Result<()> {
        let capacity = if payload < 4096 { 8 * 1024 } else { CHUNK };
        let mut client = Client::connect_with(way, None, Inbox::new(capacity)).await?;
        client.open_websocket().await?;
        while Instant::now() < end {
            let start = Instant::now();
            client.echo(&message, payload).await?;
            tally.borrow_mut().count(start, 2 * payload);
        }
        Ok(())
    };
    try_join_all((0..connections).map(|_| connection())).await?;
    Ok(tally.into_inner())
}
