//! Looks at the connections of all sessions that were wanted here once a second, and ends those that only cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runit_config::LiveSettings;
use tokio::time::MissedTickBehavior;

use crate::directory::Directory;
use crate::pace::Patience;

/// How often. A limit of seconds is kept to within two of them.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Watches for as long as the node runs.
pub(crate) async fn watch(directory: Arc<Directory>, settings: LiveSettings) {
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    // After a pause of the process itself nobody is judged by what he could not do meanwhile, as far as possible.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let patience = Patience::of(&settings.load());
        let now = began.elapsed();
        directory.for_each_live(|session| session.look(now, &patience));
    }
}
