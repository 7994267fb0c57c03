//! The task that drops entries which everyone has, and expires consumers that are too far behind. By what rule is known to `db`.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Policy};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// Looks at once and then every so often, until it is told to end.
pub(crate) async fn work(db: Db, clock: Clock, policy: Policy, closing: CancellationToken) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while closing.run_until_cancelled(looks.tick()).await.is_some() {
        if let Err(error) = look(&db, clock, &policy, &closing).await {
            tracing::error!(target: "tidewaiter", code = "retain-failed", "nothing is dropped: {error}");
        }
    }
}

async fn look(db: &Db, clock: Clock, policy: &Policy, closing: &CancellationToken) -> Result<(), CommitError> {
    loop {
        let retained = db.retain(policy.clone(), clock.now()).await?;
        for consumer in &retained.expired {
            tracing::warn!(
                target: "tidewaiter", consumer, code = "consumer-expired",
                "it is too far behind: entries are dropped without waiting for it"
            );
        }
        if retained.entries > 0 {
            tracing::info!(
                target: "tidewaiter", entries = retained.entries, bytes = retained.bytes, "dropped entries that everyone has"
            );
        }
        if !retained.more || closing.is_cancelled() {
            return Ok(());
        }
    }
}
