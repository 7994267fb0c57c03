//! What a run says of itself in the log: the answers that were failures, what isn't journaled and why, and how it ended.

use tidewaiter_core::object::SyncDelta;
use tidewaiter_core::run::{Failure, Outcome, RunReport};
use tidewaiter_core::token::Shown;

use super::{Batch, Performer};
use crate::db::{Letters, unpack};

/// Deltas not journaled that are named in the log, each in a line; the rest of a run is counted.
const DROPPED_SHOWN: usize = 1000;

impl Performer {
    pub(super) fn log_failure(&self, call: &str, failure: &Failure) {
        if self.session.is_none() {
            // The call was never made: there is no instance, and that has been logged.
            return;
        }
        let key = &self.order.key;
        let uid = match failure {
            Failure::Contract { uid, .. } => uid.as_deref(),
            _ => None,
        };
        tracing::warn!(
            target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
            code = failure.code(), uid, "{call} failed: {failure}"
        );
    }

    pub(super) fn log_letters(&self, letters: &Letters) {
        let key = &self.order.key;
        for letter in &letters.kept {
            let code = if letter.waits() { "waits-for-dead-letter" } else { "dead-letter" };
            let why = letter.fault.as_deref().unwrap_or("a dead letter of the same object comes before it");
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = self.order.run,
                code, class = letter.object_class, uid = letter.uid, "not journaled: {why}"
            );
        }
    }

    pub(super) fn log_end(&self, report: &RunReport) {
        let key = &self.order.key;
        tracing::info!(
            target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = report.run,
            outcome = report.outcome.name(), deltas = report.deltas, token_in = %Shown(report.token_in.as_ref()),
            token_out = %Shown(report.token_out.as_ref()), "run ended"
        );
        if let (Outcome::Guarded(why), Some(_)) = (&report.outcome, &self.order.reading) {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = report.run,
                code = "guarded", "no deletion is journaled until `reconcile --allow-deletes`: {why}"
            );
            return;
        }
        if let Outcome::Guarded(why) = &report.outcome {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = report.run,
                code = "guarded", "held, and nothing runs until `guard release` or `guard discard`: {why}"
            );
            return;
        }
        // What has no room comes again, however often: that it was so many is enough.
        let held = matches!(report.outcome, Outcome::Held(_));
        if self.order.reading.is_some() {
            // What was read and not journaled is read again.
            return;
        }
        let dropped = self.held.iter().filter(|_| !held).flat_map(|Batch { deltas, letters }| {
            let named = |delta: SyncDelta| (delta.change.uid().to_owned(), delta.object_class);
            let kept = letters.kept.iter().map(|letter| (letter.uid.clone(), letter.object_class.clone()));
            unpack(deltas).map(named).chain(kept)
        });
        for (uid, class) in dropped.take(DROPPED_SHOWN) {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = report.run,
                code = "uncovered-delta", class, uid, "not journaled"
            );
        }
        if report.dropped > 0 {
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, run = report.run,
                code = "uncovered-deltas", deltas = report.dropped,
                "deltas that no stored token covers are not journaled; the next run gets them again"
            );
        }
    }
}
