//! How a run ends: what of it is journaled with which token, what its type is from then on, and what is told of it.

use super::{Covered, Failure, Run, Sum};
use super::{Effect, Kind, Outcome, Phase, RunReport, Spent};
use crate::journal::Marker;
use crate::state::{Actor, OnTokenLost, SyncState, TokenBasis, TypeState};
use crate::time::UnixMillis;

impl Run {
    /// The rest of what was read is journaled, unless the call failed; live sync is as it was.
    pub(super) fn conclude_reading(&mut self, outcome: Outcome, now: UnixMillis) {
        let batches = if self.searched { self.held.len() } else { 0 };
        let sum = self.sum((0, batches));
        let report = self.report(outcome, sum, &self.stored.sync, now);
        if sum.is_nothing() {
            return self.finish(report);
        }
        self.commit((0, batches), self.next_revision(now), None, Some(report));
    }

    /// What was found by comparison is journaled whatever comes after it, unless it is too much, or of a connector that is on trial and fails.
    pub(super) fn conclude_comparing(&mut self, outcome: Outcome, now: UnixMillis) {
        let goes_back = matches!(outcome, Outcome::WentBack(_));
        let journaled = if goes_back { (0, 0) } else { (self.staged.len(), self.held.len()) };
        let mut next = self.stored.clone();
        match &outcome {
            Outcome::Ok => (next.failures, next.released, next.sync) = (0, false, SyncState::Compared),
            Outcome::Guarded(why) => next.held = Some(why.clone()),
            Outcome::Failed(_) => next.failures = next.failures.saturating_add(1),
            Outcome::More | Outcome::Stopped | Outcome::Held(_) | Outcome::Superseded | Outcome::WentBack(_) => {}
        }
        let why = match () {
            () if next.held != self.stored.held => format!("held by the guard in run {}", self.run),
            () if next.sync != self.stored.sync => format!("compared by run {}", self.run),
            () => self.stored.why.clone(),
        };
        self.settle(journaled, outcome, next, why, None, now);
    }

    /// Commits the rest with the report of the run, if there is something to write.
    fn settle(
        &mut self,
        journaled: (usize, usize),
        outcome: Outcome,
        next: TypeState,
        why: String,
        marker: Option<Marker>,
        now: UnixMillis,
    ) {
        let sum = self.sum(journaled);
        // Nothing came and nothing is new: there is nothing to write. A run that wrote something is recorded, and one that changes what runs next.
        let goes_back = matches!(outcome, Outcome::WentBack(_));
        if !self.wrote && !goes_back && sum.is_nothing() && next == self.stored {
            let report = self.report(outcome, Sum::default(), &next.sync, now);
            return self.finish(report);
        }
        let state = TypeState { why, revision: next.revision + 1, changed_at: now, changed_by: Actor::Host, ..next };
        let report = self.report(outcome, sum, &state.sync, now);
        self.commit(journaled, state, marker, Some(report));
    }

    pub(super) fn conclude(&mut self, outcome: Outcome, now: UnixMillis) {
        let covered = self.covered().filter(|_| !matches!(outcome, Outcome::WentBack(_)));
        let journaled = covered.as_ref().map_or((0, 0), |covered| (covered.staged, covered.batches));
        let refused = refused_token(&outcome);
        let skips = refused.is_some() && self.terms.on_token_lost != OnTokenLost::Stop;
        if let (true, Some(Covered { token, .. })) = (skips, &covered) {
            // It belongs to the generation before the marker. This comes again when it is written.
            let state = self.live(token.clone(), now);
            return self.commit(journaled, state, None, None);
        }
        let mut next = self.stored.clone();
        if let Some(Covered { token, .. }) = covered {
            (next.sync, next.token_basis) = (SyncState::Live(token), self.terms.token_basis.clone());
        }
        match &outcome {
            Outcome::Ok => (next.failures, next.released) = (0, false),
            Outcome::More => next.failures = 0,
            Outcome::Guarded(why) => next.held = Some(why.clone()),
            Outcome::Failed(_) => next.failures = next.failures.saturating_add(1),
            Outcome::Stopped | Outcome::Held(_) | Outcome::Superseded | Outcome::WentBack(_) => {}
        }
        match refused {
            None => {}
            Some(_) if skips => {
                (next.sync, next.generation, next.token_basis) =
                    (SyncState::New, next.generation + 1, TokenBasis::default());
                if self.terms.on_token_lost == OnTokenLost::Reconcile {
                    next.pass_owed = Some(next.generation);
                }
            }
            Some(reason) => {
                let (token, by_source) = (next.sync.token().cloned(), !self.token_is_stale);
                next.sync = SyncState::TokenLost { token, reason, by_source };
            }
        }
        let why = match &next.sync {
            _ if next.held != self.stored.held => format!("held by the guard in run {}", self.run),
            sync if *sync == self.stored.sync => self.stored.why.clone(),
            SyncState::TokenLost { .. } => format!("refused in run {}", self.run),
            SyncState::New => format!(
                "the token was refused in run {}, and on-token-lost is {}",
                self.run,
                self.terms.on_token_lost.name()
            ),
            _ => format!("reached by run {}", self.run),
        };
        let marker = skips.then_some(Marker::TokenLost);
        self.settle(journaled, outcome, next, why, marker, now);
    }

    /// Ends without writing anything.
    pub(super) fn abandon(&mut self, outcome: Outcome, now: UnixMillis) {
        if matches!(outcome, Outcome::Failed(_)) && self.kind != Kind::Read {
            self.stored.failures = self.stored.failures.saturating_add(1);
        }
        let sync = self.stored.sync.clone();
        let report = self.report(outcome, Sum::default(), &sync, now);
        self.finish(report);
    }

    pub(super) fn finish(&mut self, report: RunReport) {
        self.phase = Phase::Done;
        self.answer_flush(false);
        self.held.clear();
        self.effects.push_back(Effect::Finish { report, state: self.stored.clone() });
    }

    fn report(&self, outcome: Outcome, now_journaled: Sum, sync: &SyncState, now: UnixMillis) -> RunReport {
        let journaled = self.journaled + now_journaled;
        RunReport {
            run: self.run,
            key: self.key.clone(),
            trigger: self.trigger,
            started: self.started,
            ended: now,
            token_in: self.token_in.clone(),
            token_out: sync.token().cloned(),
            deltas: journaled.tally.changes - journaled.kept,
            dead_letters: journaled.kept,
            dropped: self.taken.tally.changes - journaled.tally.changes,
            bytes: journaled.bytes,
            retries: self.retries,
            spent: Spent {
                held_peak_bytes: self.held_peak_bytes,
                uncovered_peak_bytes: self.uncovered_peak_bytes,
                ..Spent::default()
            },
            outcome,
        }
    }
}

/// Why the source refused the token, if it did: a state of its own. Every other failure keeps what there is.
fn refused_token(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(failure @ Failure::Connector(error)) if failure.refuses_token() => Some(error.message.clone()),
        _ => None,
    }
}
