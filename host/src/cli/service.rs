//! What the service manager is told, if it asked by `NOTIFY_SOCKET`: that the server serves, takes over what is configured, and ends; and
//! again and again, where it watches, that the server still works. Without one nothing is told.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::host::Host;

/// Whoever asks is answered, and what is due is run; unless it ends already.
pub(super) fn serves(host: &Host) {
    if host.closing().is_cancelled() {
        return;
    }
    let status = format!("serving {}", host.config().data.display());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// What is configured is looked at again; `serves` comes after it.
pub(super) fn reloads() {
    // Since when, because it may have asked for another reload meanwhile.
    let since = NotifyState::monotonic_usec_now().ok();
    tell(&[NotifyState::Reloading].into_iter().chain(since).collect::<Vec<_>>());
}

/// Runs end at their checkpoints, and what is left is delivered.
pub(super) fn ends() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending at the next checkpoint of each run")]);
}

/// Proves to a service manager that watches, twice within the time that it waits, that the server works: by an answer of the scheduler's
/// own task, which nobody gives who is stuck.
pub(super) fn watched(host: &Arc<Host>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    let every = sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|every| !every.is_zero());
    if let Some(every) = every {
        let host = Arc::clone(host);
        let works = move || {
            let host = Arc::clone(&host);
            async move { host.works().await }
        };
        task.spawn(prove(every, works, || tell(&[NotifyState::Watchdog])));
    }
    task
}

/// Tells it each time, as long as it is so.
async fn prove<W: Future<Output = bool>>(every: Duration, works: impl Fn() -> W, tell: impl Fn()) {
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        if !works().await {
            return;
        }
        tell();
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(target: "tidewaiter", "the service manager can't be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tidewaiter_core::schedule::Concurrency;
    use tokio::sync::mpsc;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::clock::Clock;
    use crate::db::Db;
    use crate::driver::{Roster, Task, works};

    const EVERY: Duration = Duration::from_millis(1);

    /// Waits until something is so.
    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            sleep(EVERY).await;
        }
    }

    #[tokio::test]
    async fn a_scheduler_that_is_stuck_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path(), "a test", Duration::ZERO).unwrap();
        let roster = Arc::new(Roster::new(HashMap::new(), BTreeMap::new()));
        let counts = Default::default();
        let task = Task::new(db, Clock::start(), roster, Concurrency::default(), counts, Vec::new());
        let (requests, received) = mpsc::channel(10);
        let (mut scheduler, proofs) = (pin!(task.work(received)), AtomicU32::new(0));
        let count = || proofs.load(Ordering::Relaxed);
        let proved = || {
            proofs.fetch_add(1, Ordering::Relaxed);
        };
        let mut proving = pin!(prove(EVERY, || works(&requests), proved));

        tokio::select! {
            () = &mut scheduler => panic!("it was not told to end"),
            () = &mut proving => panic!("it has not ended"),
            () = until(|| count() >= 3) => {}
        }
        // From here on nobody lets the scheduler's task work.
        tokio::select! {
            () = &mut proving => panic!("it has not ended"),
            () = until(|| requests.capacity() < requests.max_capacity()) => {}
        }
        let before = count();
        assert!(timeout(100 * EVERY, &mut proving).await.is_err());
        assert_eq!(count(), before);
        // It works again; and where it has ended, nothing is proved any more.
        tokio::select! {
            () = &mut scheduler => panic!("it was not told to end"),
            () = &mut proving => panic!("it has not ended"),
            () = until(|| count() > before) => {}
        }
        requests.send(crate::driver::Request::Shutdown).await.unwrap();
        timeout(Duration::from_secs(10), async { tokio::join!(scheduler, proving) }).await.unwrap();
    }
}
