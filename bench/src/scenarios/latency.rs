//! Latency at a rate that is far from what anybody can do: 1,000 requests a second, on schedule.

use anyhow::Result;

use crate::measure::{Effort, Samples, note_units, rounds};
use crate::peer::{House, Peer};
use crate::scenario::side_by_side;
use crate::schedule::{self, Pace};

const PACE: Pace = Pace { per_second: 1_000, connections: 16 };
const BODY: usize = 1024;

/// Measures it.
///
/// # Errors
/// When a request fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let turn = async |peer: &mut Peer| {
        let way = peer.way.clone();
        let request =
            format!("GET {}/bytes/{BODY} HTTP/1.1\r\nHost: {}\r\n{}\r\n", way.prefix, way.address, way.credential);
        // The upstream is on this thread's runtime.
        tokio::task::spawn_blocking(move || schedule::keep(way.address, PACE, effort.turn * 2, |_| request.as_bytes()))
            .await?
    };
    rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
}
