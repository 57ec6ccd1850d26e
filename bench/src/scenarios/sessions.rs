//! Many sessions in the table: what the table costs a request, and in memory.
//!
//! Two gateways, one with few sessions and one with many, take turns; in both as many sessions are in use, so that what
//! differs is the table. Requests come each on a connection of its own, since a renter's connection serves one session; the
//! upstream closes after each answer, so that neither gateway finds a pooled connection.

use std::cell::RefCell;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::iter;

use crate::client::Client;
use crate::load;
use crate::measure::{Effort, Metric, Samples, note_units, rounds};
use crate::peer::{Demands, House, Kind, Peer, Way};
use crate::process::Process;
use crate::runit::{Rented, Runit};

const FEW: u64 = 1_000;
const MANY: u64 = 100_000;
/// First uses that are under way count as guesses of their network until they are answered.
const AT_ONCE: usize = 16;
const CONNECTIONS: usize = 32;

/// Measures it.
///
/// # Errors
/// When a gateway cannot be started, or a request fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let many = MANY / effort.shrink;
    let mut peers = Vec::new();
    let mut ways = Vec::new();
    let mut before = 0;
    let memory = |peer: &Peer| peer.process.as_ref().map(Process::memory).unwrap_or(0);
    for count in [FEW, many] {
        let peer = Peer::start(Kind::Runit, house, Demands::default()).await?;
        let runit = peer.runit.clone().context("it is RUNIT")?;
        // Locked, so that they are served; the rest only has to be there.
        let mut sessions = register(&runit, house.upstream, FEW, true).await?;
        before = memory(&peer);
        sessions.extend(register(&runit, house.upstream, count - FEW, false).await?);
        ways.push(sessions.into_iter().take(usize::try_from(FEW)?).map(|session| session.way).collect::<Vec<Way>>());
        peers.push(peer);
    }
    let gateways: Vec<SocketAddr> = peers.iter().map(|peer| peer.way.address).collect();
    let turn = async |peer: &mut Peer| {
        let of = gateways.iter().position(|&address| address == peer.way.address).context("one of them")?;
        let dice = RefCell::new(Dice(1));
        let draw = || ways[of][dice.borrow_mut().below(ways[of].len())].clone();
        load::fresh(draw, None, CONNECTIONS, "/close/1024", effort.turn).await
    };
    let mut samples = rounds(&mut peers, effort, turn, note_units).await?;
    for (samples, count) in samples.iter_mut().zip([FEW, many]) {
        samples.of = format!("{count} sessions");
    }
    // At last: what registering them took besides has been given back.
    let grown = memory(&peers[1]).saturating_sub(before) as f64 / 1024.0;
    samples[1].note(Metric::Memory, grown / (many - FEW).max(1) as f64);
    Ok(samples)
}

/// Registers sessions, and takes their locks if asked to.
///
/// # Errors
/// When one is refused.
pub(crate) async fn register(runit: &Runit, upstream: SocketAddr, count: u64, lock: bool) -> Result<Vec<Rented>> {
    let share = |number: u64| count / AT_ONCE as u64 + u64::from(number < count % AT_ONCE as u64);
    let batch = async |number: u64| -> Result<Vec<Rented>> {
        let mut control = Client::connect(&runit.control(), None).await?;
        let mut sessions = Vec::new();
        for _ in 0..share(number) {
            let session = runit.register(&mut control, upstream).await?;
            if lock {
                runit.lock(&session).await?;
            }
            sessions.push(session);
        }
        Ok(sessions)
    };
    let batches: Vec<Result<Vec<Rented>>> =
        iter(0..AT_ONCE as u64).map(batch).buffer_unordered(AT_ONCE).collect().await;
    let mut sessions = Vec::new();
    for batch in batches {
        sessions.extend(batch?);
    }
    Ok(sessions)
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap_or(0) % end.max(1)
    }
}
