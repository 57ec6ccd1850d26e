//! What passed the gate: counted at its sockets, heads included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{InspectReader, InspectWriter};

use super::Shared;

/// Each a sum of its own that nothing is decided by together with another: relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) admitted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) upgraded: AtomicU64,
    pub(super) upgraded_open: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What passed the gate since it listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests that brought the secret.
    pub admitted: u64,
    /// Requests that the gate answered itself.
    pub refused: u64,
    /// Requests that became a WebSocket.
    pub upgraded: u64,
    /// Of these, open now.
    pub upgraded_open: u64,
    /// Bytes from the tunnel.
    pub bytes_in: u64,
    /// Bytes to the tunnel.
    pub bytes_out: u64,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            admitted: value(&self.admitted),
            refused: value(&self.refused),
            upgraded: value(&self.upgraded),
            upgraded_open: value(&self.upgraded_open),
            bytes_in: value(&self.bytes_in),
            bytes_out: value(&self.bytes_out),
        }
    }
}

/// The same stream, counted.
pub(super) fn counted<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: &Arc<Shared>,
) -> impl AsyncRead + AsyncWrite + Unpin + use<S> {
    let (reading, writing) = (Arc::clone(shared), Arc::clone(shared));
    let add = |counter: &AtomicU64, bytes: &[u8]| {
        counter.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    };
    let written = InspectWriter::new(stream, move |bytes| add(&writing.counters.bytes_out, bytes));
    InspectReader::new(written, move |bytes| add(&reading.counters.bytes_in, bytes))
}
