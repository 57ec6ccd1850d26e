//! What takes long to find out, found out by one at a time and not again at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// What takes less is found out anew for everybody who asks.
const LONG: Duration = Duration::from_millis(50);
/// It is good for so many times as long as it took, so that no more than a tenth of a thread is busy with it, and no longer than
/// so long.
const GOOD_FOR: u32 = 9;
const LONGEST: Duration = Duration::from_secs(30);

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
        let now = Instant::now();
        if let Some(good_for) = good_for(now - asked_at) {
            *known = Some(Found { what: Arc::clone(&what), good_until: now + good_for });
        }
        Ok(what)
    }
}

/// For how long what took so long to find is not asked about again; none: not at all.
fn good_for(took: Duration) -> Option<Duration> {
    (took >= LONG).then(|| (took * GOOD_FOR).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_takes_long_is_good_for_a_while_and_what_does_not_is_asked_each_time() {
        assert_eq!(good_for(LONG - Duration::from_millis(1)), None);
        assert_eq!(good_for(Duration::from_secs(1)), Some(Duration::from_secs(9)));
        assert_eq!(good_for(Duration::from_secs(60)), Some(LONGEST));
    }

    #[tokio::test]
    async fn one_asks_for_many() {
        let (seldom, asked) = (Seldom::default(), AtomicU32::new(0));
        let one = || {
            seldom.get(async || {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Infallible>(asked.fetch_add(1, Ordering::Relaxed))
            })
        };
        futures::future::join_all((0..5).map(|_| one())).await;
        assert_eq!(asked.into_inner(), 1);
    }
}
