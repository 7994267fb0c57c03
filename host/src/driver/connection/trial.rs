//! How a connection stands with the files of its connector: what it runs on trial and goes back to, what it ran well with before, what it doesn't run.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use tidewaiter_core::name::{TypeKey, TypeName};
use tidewaiter_core::state::{SyncState, TypeState};
use tidewaiter_core::text::shown;

use super::{Awaiting, Connection, NAME_BYTES_MAX, Needed};
use crate::audit::{AuditError, Event};
use crate::db::{Placement, RefusedRevision};

/// So many runs with changes of a type end well before its connector is trusted with committing while it runs.
pub(crate) const TRIAL_RUNS: u32 = 3;

/// A connection whose connector came in the place of another revision.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// With what it ran before.
    pub(crate) previous: Arc<Connection>,
    /// Runs with changes that ended well since, up to `TRIAL_RUNS`.
    pub(crate) passed: BTreeMap<TypeName, u32>,
}

/// Files are named by their hash, in hexadecimal.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// None: its connector has shown that it can.
    trial: Option<Trial>,
    /// What it ran well with before; none: it is not known.
    before: Option<String>,
    refused: Option<RefusedRevision>,
    /// What that needs and nobody has approved, if that is why.
    needs: Option<Needed>,
}

impl Trial {
    fn has_passed(&self, object_type: &TypeName) -> bool {
        self.passed.get(object_type).is_some_and(|passed| *passed >= TRIAL_RUNS)
    }

    fn previous_sha256(&self) -> String {
        self.previous.connector.sha256().to_owned()
    }
}

impl Connection {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down which file of its connector it runs from now on, and what that is allowed.
    ///
    /// # Errors
    /// The audit can't be written.
    pub(crate) fn note_placed(&self) -> Result<(), AuditError> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let connection = self.name.as_str();
        let version = shown(&self.connector.info().version, NAME_BYTES_MAX);
        let (connector, sha256) = (self.config.connector.as_str(), self.connector.sha256());
        audit.note(&Event::Connector { connection, connector, version: &version, sha256 })?;
        audit.note(&Event::Grants { connection, decided: &self.allowed().decided })
    }

    /// It stands as it did in an earlier process, but for what it is on trial with.
    pub(crate) fn stands_as(&self, stored: &Placement) {
        let mut standing = self.standing();
        (standing.before, standing.refused) = (stored.before.clone(), stored.refused.clone());
    }

    /// It is on trial from now on, unless all of its types have passed.
    pub(crate) fn begins_trial(&self, trial: Trial) {
        let is_over = self.is_over(&trial);
        self.standing().trial = Some(trial).filter(|_| !is_over);
    }

    /// Nothing is gone back to any more.
    pub(crate) fn ends_trial(&self) {
        self.standing().trial = None;
    }

    fn is_over(&self, trial: &Trial) -> bool {
        self.config.types.keys().all(|name| trial.has_passed(name))
    }

    /// What it goes back to, and how far it got; none: it is not on trial.
    pub(crate) fn trial(&self) -> Option<Trial> {
        self.standing().trial.clone()
    }

    pub(super) fn is_on_trial(&self, object_type: &TypeName) -> bool {
        self.standing().trial.as_ref().is_some_and(|trial| !trial.has_passed(object_type))
    }

    /// A run with changes of a type ended well. Answers whether that is news.
    pub(crate) fn passes(&self, object_type: &TypeName) -> bool {
        let mut standing = self.standing();
        let Some(trial) = standing.trial.as_mut().filter(|trial| !trial.has_passed(object_type)) else { return false };
        *trial.passed.entry(object_type.clone()).or_default() += 1;
        if self.is_over(trial) {
            standing.before = standing.trial.take().map(|trial| trial.previous_sha256());
        }
        true
    }

    /// What it runs where that has shown that it can, and else what it goes back to.
    pub(crate) fn proven(self: &Arc<Self>) -> Arc<Self> {
        self.trial().map_or_else(|| Arc::clone(self), |trial| trial.previous)
    }

    /// What it goes back to, or ran well with before that; none: it is not known.
    pub(crate) fn ran_well_before(&self) -> Option<String> {
        let standing = self.standing();
        standing.trial.as_ref().map(Trial::previous_sha256).or_else(|| standing.before.clone())
    }

    /// It doesn't run this file, and whoever looks sees why; none: there is no such file.
    pub(crate) fn refuse(&self, revision: Option<RefusedRevision>) {
        self.standing().refused = revision;
    }

    /// The file that it doesn't run needs that; none: that is not why.
    pub(crate) fn needs(&self, needed: Option<Needed>) {
        self.standing().needs = needed;
    }

    /// What awaits approval: of the file that it doesn't run for want of that, or else of what it runs.
    pub(crate) fn awaiting(&self) -> Option<Awaiting> {
        let needed = self.needed().map(|needed| needed.awaiting);
        needed.or_else(|| self.allowed().awaiting.clone())
    }

    /// What the file needs that it doesn't run for want of it.
    pub(crate) fn needed(&self) -> Option<Needed> {
        self.standing().needs.clone()
    }

    /// The file that it doesn't run.
    pub(crate) fn refused(&self) -> Option<RefusedRevision> {
        self.standing().refused.clone()
    }

    /// What is written down of what it runs.
    pub(crate) fn placement(&self) -> Placement {
        let Standing { trial, before, refused, .. } = &*self.standing();
        Placement {
            connector: self.config.connector.clone(),
            sha256: self.connector.sha256().to_owned(),
            previous: trial.as_ref().map(Trial::previous_sha256),
            passed: trial.as_ref().map(|trial| trial.passed.clone()).unwrap_or_default(),
            before: before.clone(),
            refused: refused.clone(),
            settings: Some(self.written_for.clone()),
        }
    }

    /// A type of it that holds a token in a format that its connector doesn't read, if there is one.
    pub(crate) fn unread(&self, states: &BTreeMap<TypeKey, TypeState>) -> Option<TypeKey> {
        let is_unread = |(key, state): &(&TypeKey, &TypeState)| {
            let is_its = key.connection == self.name && self.config.types.contains_key(&key.object_type);
            let is_held = is_its && matches!(state.sync, SyncState::Live(_));
            is_held && !state.token_basis.is_read(&self.terms(&key.object_type).token_formats)
        };
        states.iter().find(is_unread).map(|(key, _)| key.clone())
    }
}
