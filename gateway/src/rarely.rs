//! For what is waited for beside something that is polled for every byte.

use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// The same future, which is polled again only when it was woken itself. Of two in one `select!` each is polled whenever
/// either is woken, and to look at a clock or at a list of waiters costs more than to pass a message on.
pub(crate) async fn rarely<F: Future>(future: F) -> F::Output {
    let mut one = FuturesUnordered::from_iter([future]);
    match one.next().await {
        Some(output) => output,
        None => std::future::pending().await,
    }
}
