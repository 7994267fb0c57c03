//! The task that drops entries which everyone has, and expires consumers that are too far behind. By what rule is known to `db`.

use std::time::Duration;

use tidewaiter_core::name::TypeKey;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Policy};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// So many looks apart shadows are brought up with the journal.
const SHADOWS_EVERY: u32 = 30;
/// So many looks apart where they are far behind.
const SHADOWS_SOON: u32 = 5;
/// How far that is, in entries.
const SHADOWS_BEHIND: u64 = 10_000;

/// Looks at once and then every so often, until it is told to end.
pub(crate) async fn work(db: Db, clock: Clock, policy: Policy, closing: CancellationToken) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut since, mut last) = (SHADOWS_EVERY, 0);
    while closing.run_until_cancelled(looks.tick()).await.is_some() {
        since += 1;
        let is_far = since >= SHADOWS_SOON && db.last_sequence() - last >= SHADOWS_BEHIND;
        if is_far || since >= SHADOWS_EVERY {
            (since, last) = (0, db.last_sequence());
            closing.run_until_cancelled(settle_shadows(&db)).await;
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
async fn settle_shadows(db: &Db) {
    let last = db.last_sequence();
    let shadows = match db.shadows() {
        Ok(shadows) => shadows,
        Err(error) => {
            tracing::error!(target: "tidewaiter", code = "shadow-failed", "the shadows can't be read: {error}");
            return;
        }
    };
    for (key, _) in shadows.iter().filter(|(_, shadow)| shadow.position() < last) {
        let Some(hold) = db.hold_shadow(key) else { continue };
        if let Err(error) = hold.settle().await {
            let TypeKey { connection, object_type } = key;
            tracing::error!(
                target: "tidewaiter", %connection, r#type = %object_type, code = "shadow-failed",
                "its shadow can't be brought up, and no entry is dropped: {error}"
            );
        }
    }
}
