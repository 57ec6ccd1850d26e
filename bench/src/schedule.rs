//! An open loop: requests are sent when they are due, whatever happened to those before.
//!
//! A request's latency counts from when it was due, also if the one before it on its connection was late: what a slow
//! moment does to those who come meanwhile is in the numbers (no "coordinated omission"). Each connection has a thread of its
//! own, because the timers of an asynchronous runtime tick in milliseconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::measure::Tally;

/// How often, and over how many connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u32,
    pub(crate) connections: u32,
}

/// Sends requests for as long as `turn`; `request` gives the bytes of the one with that number. Blocks.
///
/// # Errors
/// When an answer is not a 200 with a length, or a connection ends.
pub(crate) fn keep<B: AsRef<[u8]>>(
    address: SocketAddr,
    pace: Pace,
    turn: Duration,
    request: impl Fn(u32) -> B + Sync,
) -> Result<Tally> {
    let begin = Instant::now() + Duration::from_millis(20);
    let connection = &|number| keep_one(address, pace, number, (begin, turn), &request);
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..pace.connections).map(|number| scope.spawn(move || connection(number))).collect();
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

fn keep_one<B: AsRef<[u8]>>(
    address: SocketAddr,
    pace: Pace,
    number: u32,
    (begin, turn): (Instant, Duration),
    request: impl Fn(u32) -> B,
) -> Result<Tally> {
    // Sleeps may be late by 50 µs otherwise.
    rustix::thread::set_current_timer_slack(NonZero::new(1))?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut tally = Tally::default();
    let mut buffer = vec![0; 16 * 1024];
    for turn_of in 0.. {
        let index = number + turn_of * pace.connections;
        let due = Duration::from_secs(1) * index / pace.per_second;
        if due >= turn {
            break;
        }
        let due = begin + due;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request(index).as_ref())?;
        let mut read = 0;
        while !is_whole(&buffer[..read]) {
            let more = stream.read(&mut buffer[read..])?;
            ensure!(more > 0, "the connection ended");
            read += more;
        }
        ensure!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
        tally.count(due, 0);
    }
    Ok(tally)
}

/// Whether the head has come, and a body of the length that it gives.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    answer.len() >= end + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_whole(answer));
        assert!((0..answer.len()).all(|length| !is_whole(&answer[..length])));
    }
}
