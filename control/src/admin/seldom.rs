//! What takes long to find out, found out by one at a time and not again at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// What takes less is found out anew for everybody who asks.
const LONG: Duration = Duration::from_millis(50);
/// It is good for so many times as long as it took, so that no more than a tenth of a thread is busy with it.
const GOOD_FOR: u32 = 9;

pub(super) struct Seldom<T>(Mutex<Option<Found<T>>>);

struct Found<T> {
    what: Arc<T>,
    good_until: Instant,
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Seldom<T> {
    /// What `find` finds, or found a while ago.
    pub(super) async fn get<E>(&self, find: impl AsyncFnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut known = self.0.lock().await;
        let asked_at = Instant::now();
        if let Some(found) = known.as_ref().filter(|found| found.good_until > asked_at) {
            return Ok(Arc::clone(&found.what));
        }
        let what = Arc::new(find().await?);
        let (now, took) = (Instant::now(), asked_at.elapsed());
        if took >= LONG {
            *known = Some(Found { what: Arc::clone(&what), good_until: now + took * GOOD_FOR });
        }
        Ok(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn what_takes_long_is_asked_once_for_many_and_what_does_not_for_each() {
        for (takes, times) in [(LONG, 1), (Duration::ZERO, 5)] {
            let (seldom, asked) = (Seldom::default(), std::sync::atomic::AtomicU32::new(0));
            let one = || {
                seldom.get(async || {
                    tokio::time::sleep(takes).await;
                    Ok::<_, Infallible>(asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                })
            };
            futures::future::join_all((0..5).map(|_| one())).await;
            assert_eq!(asked.into_inner(), times, "{takes:?}");
        }
    }
}
