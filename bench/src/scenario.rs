//! What is measured, by name.

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::load;
use crate::measure::{Effort, Metric, Samples, note_bytes, note_units, rounds};
use crate::peer::{Demands, House, Kind, Peer};
use crate::scenarios::{cap, control, fleet, idle, latency, page, sessions};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Requests of 1 KiB on 32 kept connections
    Small,
    /// The same, each on a connection of its own
    Connect,
    /// Requests of 1 KiB on 32 kept connections with TLS
    Tls,
    /// The same, each on a connection of its own: a full handshake each
    TlsConnect,
    /// One download of 1 GiB
    Download,
    /// One upload of 1 GiB
    Upload,
    /// Messages of 64 bytes there and back on 32 WebSockets
    Echo,
    /// Messages of 1 MiB there and back on 4 WebSockets
    EchoLarge,
    /// 8,000 WebSockets on which nothing happens
    Idle,
    /// A recorded page load of JupyterLab, replayed
    Page,
    /// 1,000 requests a second on schedule: latency from when each was due
    Latency,
    /// Requests of sessions drawn at random, with 1,000 and with 100,000 in the table
    Sessions,
    /// 16 downloads of one session run into its cap
    Cap,
    /// The control API: heartbeats, and registrations
    Control,
    /// 100,000 sessions whose agents send 5,000 heartbeats a second, beside requests of 1 KiB
    Fleet,
}

const CONNECTIONS: usize = 32;
const LARGE_CONNECTIONS: usize = 4;
const GIB: u64 = 1 << 30;
const SMALL: &str = "/bytes/1024";

impl Scenario {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, in a line.
    pub(crate) fn about(self) -> String {
        self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// The number to look at first.
    pub(crate) const fn main_metric(self) -> Metric {
        match self {
            Self::Download | Self::Upload => Metric::PerCpu,
            Self::Idle => Metric::Memory,
            Self::Page => Metric::Load,
            Self::Latency => Metric::Median,
            Self::Fleet => Metric::P99,
            Self::Cap => Metric::Overshoot,
            _ => Metric::CpuMicros,
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// When a peer is missing or a request fails.
    pub(crate) async fn run(self, house: &House, effort: Effort) -> Result<Vec<Samples>> {
        let bytes = GIB / effort.shrink;
        match self {
            Self::Small => {
                let turn = async |peer: &mut Peer| load::kept(&peer.way, None, CONNECTIONS, SMALL, effort.turn).await;
                rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
            }
            Self::Connect => {
                let turn = async |peer: &mut Peer| {
                    load::fresh(|| peer.way.clone(), None, CONNECTIONS, SMALL, effort.turn).await
                };
                rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
            }
            Self::Tls => {
                let tls = house.certificate.connector()?;
                let turn =
                    async |peer: &mut Peer| load::kept(&peer.way, Some(&tls), CONNECTIONS, SMALL, effort.turn).await;
                rounds(&mut with_tls(house).await?, effort, turn, note_units).await
            }
            Self::TlsConnect => {
                let tls = house.certificate.connector()?;
                let turn = async |peer: &mut Peer| {
                    load::fresh(|| peer.way.clone(), Some(&tls), CONNECTIONS, SMALL, effort.turn).await
                };
                rounds(&mut with_tls(house).await?, effort, turn, note_units).await
            }
            Self::Download => {
                let turn = async |peer: &mut Peer| load::download(&peer.way, bytes).await;
                rounds(&mut side_by_side(house).await?, effort, turn, note_bytes).await
            }
            Self::Upload => {
                let turn = async |peer: &mut Peer| load::upload(&peer.way, bytes).await;
                rounds(&mut side_by_side(house).await?, effort, turn, note_bytes).await
            }
            Self::Echo => {
                let turn = async |peer: &mut Peer| load::echo(&peer.way, CONNECTIONS, 64, effort.turn).await;
                rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
            }
            Self::EchoLarge => {
                let turn = async |peer: &mut Peer| load::echo(&peer.way, LARGE_CONNECTIONS, 1 << 20, effort.turn).await;
                rounds(&mut side_by_side(house).await?, effort, turn, note_units).await
            }
            Self::Idle => idle::run(house, effort).await,
            Self::Page => page::run(house, effort).await,
            Self::Latency => latency::run(house, effort).await,
            Self::Sessions => sessions::run(house, effort).await,
            Self::Cap => cap::run(house, effort).await,
            Self::Control => control::run(house, effort).await,
            Self::Fleet => fleet::run(house, effort).await,
        }
    }
}

/// All peers, running.
///
/// # Errors
/// When one is missing.
pub(crate) async fn side_by_side(house: &House) -> Result<Vec<Peer>> {
    start(house, &house.kinds, Demands::default()).await
}

/// Those that can serve TLS.
async fn with_tls(house: &House) -> Result<Vec<Peer>> {
    let mut peers = start(house, &house.kinds, Demands { tls: true, ..Demands::default() }).await?;
    peers.retain(|peer| peer.way.tls_address.is_some());
    Ok(peers)
}

/// Starts peers.
///
/// # Errors
/// When one is missing.
pub(crate) async fn start(house: &House, kinds: &[Kind], demands: Demands) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for &kind in kinds {
        peers.push(Peer::start(kind, house, demands).await?);
    }
    Ok(peers)
}
