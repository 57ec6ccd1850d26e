//! An open loop: requests are sent when they are due, whatever happened to those before.
//!
//! A request's latency counts from when it was due, also if the one before it on its connection was late: what a slow
//! moment does to those who come meanwhile is in the numbers (no "coordinated omission"). One thread keeps all connections,
//! and a timer of the kernel's wakes it: those of an asynchronous runtime tick in milliseconds, and a thread for each connection
//! would have the kernel wake one for each answer, at the cost of who answers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::measure::Tally;

/// What an event of the timer is known by; connections are numbered from zero.
const TIMER: u64 = u64::MAX;

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
    request: impl Fn(u32) -> B,
) -> Result<Tally> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    epoll::add(&poll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    let mut connections = Vec::new();
    for number in 0..pace.connections {
        let connection = Connection::open(address)?;
        epoll::add(&poll, &connection.stream, epoll::EventData::new_u64(number.into()), epoll::EventFlags::IN)?;
        connections.push(connection);
    }
    let begin = Instant::now() + Duration::from_millis(20);
    let mut coming = (0..)
        .map(|number| (number, Duration::from_secs(1) * number / pace.per_second))
        .take_while(|&(_, at)| at < turn)
        .peekable();
    let mut tally = Tally::default();
    let mut ready = Vec::with_capacity(connections.len() + 1);
    while coming.peek().is_some() || connections.iter().any(Connection::is_busy) {
        while let Some((number, at)) = coming.next_if(|&(_, at)| begin + at <= Instant::now()) {
            let connection = &mut connections[(number % pace.connections) as usize];
            connection.due.push_back((number, begin + at));
            if connection.due.len() == 1 {
                connection.send(&request)?;
            }
        }
        let wait = coming.peek().map(|&(_, at)| (begin + at).saturating_duration_since(Instant::now()));
        set(&timer, wait)?;
        ready.clear();
        epoll::wait(&poll, spare_capacity(&mut ready), None)?;
        for event in ready.iter().filter(|event| event.data.u64() != TIMER) {
            let connection = &mut connections[usize::try_from(event.data.u64())?];
            if let Some(due) = connection.receive()? {
                tally.count(due, 0);
                connection.send(&request)?;
            }
        }
    }
    Ok(tally)
}

/// Has it fire once after that time, or not at all; what has fired before is forgotten.
fn set(timer: &OwnedFd, wait: Option<Duration>) -> Result<()> {
    let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
    // No time at all would mean never.
    let wait = wait.map(|wait| Timespec::try_from(wait.max(Duration::from_nanos(1)))).transpose()?;
    let once = Itimerspec { it_interval: nothing, it_value: wait.unwrap_or(nothing) };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

struct Connection {
    stream: TcpStream,
    /// Requests without an answer, of which the first has been sent.
    due: VecDeque<(u32, Instant)>,
    answer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: VecDeque::new(), answer: Vec::new() })
    }

    fn is_busy(&self) -> bool {
        !self.due.is_empty()
    }

    /// Sends the first that is due. One at a time: it fits into the socket.
    fn send<B: AsRef<[u8]>>(&mut self, request: impl Fn(u32) -> B) -> Result<()> {
        if let Some(&(number, _)) = self.due.front() {
            self.stream.write_all(request(number).as_ref())?;
        }
        Ok(())
    }

    /// Reads what is there; when the request was due whose answer is whole now.
    fn receive(&mut self) -> Result<Option<Instant>> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            read => {
                let read = read?;
                ensure!(read > 0, "the connection ended");
                self.answer.extend_from_slice(&buffer[..read]);
            }
        }
        if !is_whole(&self.answer) {
            return Ok(None);
        }
        ensure!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
        self.answer.clear();
        let (_, due) = self.due.pop_front().context("an answer to nothing")?;
        Ok(Some(due))
    }
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
