//! Latency at a rate that is far from what anybody can do: 1,000 requests a second, on schedule.
//!
//! A request's latency counts from when it was due, also if the one before it on its connection was late: what a slow
//! moment does to those who come meanwhile is in the numbers (no "coordinated omission"). Each connection has a thread of its
//! own, because the timers of an asynchronous runtime tick in milliseconds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::measure::{Effort, Samples, Tally, note_units, rounds};
use crate::peer::{House, Peer, Way};
use crate::scenario::side_by_side;

const PER_SECOND: u32 = 1_000;
const CONNECTIONS: u32 = 16;
const BODY: usize = 1024;

/// Measures it.
///
/// # Errors
/// When a request fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let turn = async |peer: &mut Peer| {
        let way = peer.way.clone();
        // The upstream is on this thread's runtime.
        tokio::task::spawn_blocking(move || on_schedule(&way, effort.turn * 2)).await?
    };
    rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
}

fn on_schedule(way: &Way, turn: Duration) -> Result<Tally> {
    let begin = Instant::now() + Duration::from_millis(20);
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..CONNECTIONS).map(|number| scope.spawn(move || connection(way, begin, number, turn))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        let tally = tally?;
        all.done += tally.done;
        all.latency.add(&tally.latency)?;
    }
    Ok(all)
}

fn connection(way: &Way, begin: Instant, number: u32, turn: Duration) -> Result<Tally> {
    // Sleeps may be late by 50 µs otherwise.
    rustix::thread::set_current_timer_slack(NonZero::new(1))?;
    let mut stream = TcpStream::connect(way.address)?;
    stream.set_nodelay(true)?;
    let request =
        format!("GET {}/bytes/{BODY} HTTP/1.1\r\nHost: {}\r\n{}\r\n", way.prefix, way.address, way.credential);
    let mut tally = Tally::default();
    let mut buffer = vec![0; 16 * 1024];
    for turn_of in 0.. {
        let due = Duration::from_secs(1) * (number + turn_of * CONNECTIONS) / PER_SECOND;
        if due >= turn {
            break;
        }
        let due = begin + due;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes())?;
        let mut read = 0;
        while !is_whole(&buffer[..read]) {
            let more = stream.read(&mut buffer[read..])?;
            ensure!(more > 0, "the connection ended");
            read += more;
        }
        ensure!(buffer.starts_with(b"HTTP/1.1 200"), "not a 200");
        tally.count(due, 0);
    }
    Ok(tally)
}

fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    end.is_some_and(|end| answer.len() >= end + 4 + BODY)
}
