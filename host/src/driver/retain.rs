//! The task that drops entries which everyone has, and expires consumers that are too far behind. By what rule is known to `db`.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Policy, ReadError};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// So many looks apart shadows are brought up with the journal.
const SHADOWS_EVERY: u32 = 30;
/// How far behind they may be meanwhile, in entries.
const SHADOWS_BEHIND: u64 = 10_000;

/// Looks at once and then every so often, until it is told to end.
pub(crate) async fn work(db: Db, clock: Clock, policy: Policy, closing: CancellationToken) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut since, mut last) = (0, db.last_sequence());
    while closing.run_until_cancelled(looks.tick()).await.is_some() {
        let grown = db.last_sequence() - last;
        since += 1;
        if grown > 0 && (grown >= SHADOWS_BEHIND || since >= SHADOWS_EVERY) {
            (since, last) = (0, db.last_sequence());
            if let Err(error) = settle_shadows(&db).await {
                tracing::error!(target: "tidewaiter", code = "shadow-failed", "a shadow can't be brought up: {error}");
            }
        }
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

/// Brings the shadows up that nobody else does, so that no entry is kept for them.
async fn settle_shadows(db: &Db) -> Result<(), CommitError> {
    let last = db.last_sequence();
    let shadows = db.shadows().map_err(|error: ReadError| CommitError::Storage(error.to_string()))?;
    for (key, _) in shadows.iter().filter(|(_, shadow)| shadow.position() < last) {
        if let Some(hold) = db.hold_shadow(key) {
            hold.settle().await?;
        }
    }
    Ok(())
}
