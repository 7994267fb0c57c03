//! What operators do about dead letters: look at them, have their objects told as they are now, or give them up. What waited for them goes
//! on then, in its order.

use std::collections::{BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidewaiter_core::dead_letter::{DataFaults, DeadLetter, related, released};
use tidewaiter_core::inspect::Inspector;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::object::SyncDelta;
use tidewaiter_core::run::Outcome;
use tidewaiter_core::schema::{ALL_CLASSES, Operation};
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;
use tokio::sync::mpsc;

use super::reconcile::{Reconciler, Scope};
use super::{Host, HostError};
use crate::clock::Clock;
use crate::db::{Commit, CommitError, Db, Letters, Sensitive, StoredLetter, pack};
use crate::driver::Request;
use crate::sink::render;

/// A dead letter, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LetterView {
    /// Its number.
    pub number: u64,
    /// Of which type.
    #[serde(flatten)]
    pub key: TypeKey,
    /// The class of its object.
    pub class: String,
    /// The uid of its object.
    pub uid: String,
    /// The uid that it had before, if that changed.
    pub previous_uid: Option<String>,
    /// What happened, as in `create`.
    pub kind: String,
    /// What is wrong with it; none: it waits for one before it.
    pub fault: Option<String>,
    /// The run that kept it.
    pub run: Option<u64>,
    /// When.
    pub at: UnixMillis,
    /// What came, as a sink has it, with what is sensitive masked; none: it was too large to be kept, or isn't asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Json>,
}

impl LetterView {
    fn new(stored: StoredLetter) -> Self {
        let StoredLetter { number, key, run, at, letter } = stored;
        let DeadLetter { object_class: class, uid, previous_uid, kind, fault, .. } = letter;
        Self { number, key, class, uid, previous_uid, kind, fault, run, at, delta: None }
    }

    fn with_delta(stored: StoredLetter, sensitive: &Sensitive) -> Self {
        let delta = stored.letter.delta.as_ref();
        let delta = delta.map(|delta| render::masked_delta(&stored.key.connection, delta, sensitive));
        Self { delta, ..Self::new(stored) }
    }
}

/// What became of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settled {
    /// Numbers of those that are done with.
    pub settled: Vec<u64>,
    /// Numbers of those that waited for them, and are journaled now.
    pub released: Vec<u64>,
}

impl Host {
    /// The dead letters of a connection, or all: each type's in the order in which they came.
    ///
    /// # Errors
    /// The db.
    pub fn dead_letters(&self, of: Option<&ConnectionName>) -> Result<Vec<LetterView>, HostError> {
        let letters = self.db.dead_letters(None)?.into_iter();
        let wanted = letters.filter(|stored| of.is_none_or(|of| stored.key.connection == *of));
        Ok(wanted.map(LetterView::new).collect())
    }

    /// A dead letter, with what came.
    ///
    /// # Errors
    /// There is none of that number, or the db.
    pub fn dead_letter(&self, number: u64) -> Result<LetterView, HostError> {
        Ok(LetterView::with_delta(letter(&self.db, number)?, &self.db.sensitive()?))
    }

    /// Has the object of a dead letter told as it is now, with all that are kept of it: where the connector reads objects by their uid, as
    /// it is in the source, and otherwise as it came, if nothing is wrong with it any more and nothing waits for it.
    ///
    /// # Errors
    /// There is none of that number, it can't be done, or what is read is at fault still.
    pub async fn retry_dead_letter(&self, number: u64, by: Actor) -> Result<Settled, HostError> {
        let stored = letter(&self.db, number)?;
        let reconciler = self.reconciler(&stored.key)?;
        let (audit, settling) = (self.audit.clone(), self.settling(stored.key.clone()));
        self.act(async move {
            audit.act(&by, "dead-letters retry", format!("{} {number}", stored.key)).await?;
            settling.retry(&reconciler, stored).await
        })
        .await
    }

    /// Gives a dead letter up: it is never told, and what waits for it is.
    ///
    /// # Errors
    /// There is none of that number, it only waits for another one, or the db.
    pub async fn drop_dead_letter(&self, number: u64, by: Actor) -> Result<Settled, HostError> {
        let stored = letter(&self.db, number)?;
        if stored.letter.waits() {
            return Err(HostError::OnlyWaits { number });
        }
        let (audit, settling) = (self.audit.clone(), self.settling(stored.key.clone()));
        self.act(async move {
            audit.act(&by, "dead-letters drop", format!("{} {number}", stored.key)).await?;
            let StoredLetter { key, letter, .. } = &stored;
            tracing::warn!(
                target: "tidewaiter::run", connection = %key.connection, r#type = %key.object_type, code = "dead-letter-dropped",
                class = letter.object_class, uid = letter.uid, number, by = %by, "never journaled"
            );
            settling.settle(&HashSet::from([number]), Vec::new()).await
        })
        .await
    }

    fn settling(&self, key: TypeKey) -> Settling {
        Settling { db: self.db.clone(), clock: self.clock, requests: Some(self.requests.clone()), key }
    }
}

fn letter(db: &Db, number: u64) -> Result<StoredLetter, HostError> {
    let found = db.dead_letters(None)?.into_iter().find(|stored| stored.number == number);
    found.ok_or(HostError::NoSuchLetter { number })
}

fn numbered(letters: &[StoredLetter]) -> Vec<(u64, &DeadLetter)> {
    letters.iter().map(|stored| (stored.number, &stored.letter)).collect()
}

/// What is needed to be done with dead letters of a type, whether or not whoever asked is there still.
pub(super) struct Settling {
    pub(super) db: Db,
    pub(super) clock: Clock,
    /// Where the scheduler is told; none: nothing runs, or it finds out.
    pub(super) requests: Option<mpsc::Sender<Request>>,
    pub(super) key: TypeKey,
}

impl Settling {
    async fn retry(&self, reconciler: &Reconciler, stored: StoredLetter) -> Result<Settled, HostError> {
        let letters = self.db.dead_letters(Some(&self.key))?;
        let (letters, number) = (numbered(&letters), stored.number);
        let related = related(&letters, number);
        let gone: HashSet<u64> = related.iter().map(|(number, _)| *number).collect();
        let connection = &reconciler.connection;
        let class = connection.class(&self.key.object_type);
        if connection.connector.info().does(Operation::SearchByUid) && class != ALL_CLASSES {
            let uids: BTreeSet<&str> = related.iter().flat_map(|(_, letter)| letter.uids()).collect();
            for uid in uids {
                self.read(reconciler, uid, number).await?;
            }
            return self.settle(&gone, Vec::new()).await;
        }
        let not_retried = |why: String| HostError::NotRetried { number, why };
        if let Some((other, _)) = related.iter().find(|(other, _)| *other != number) {
            let why = format!(
                "connector {} reads no object by its uid, and {other} is kept of the same object",
                connection.config.connector
            );
            return Err(not_retried(why));
        }
        let delta = stored.letter.delta.ok_or_else(|| not_retried("what came was too large to be kept".to_owned()))?;
        let classes = connection.ask_for_classes(&self.key).await;
        let classes = classes.map_err(|failure| not_retried(failure.to_string()))?;
        let mut inspector = Inspector::new(classes, connection.config.limits, DataFaults::Fail);
        inspector.open(&class);
        inspector.emit(std::slice::from_ref(&delta), None).map_err(|rejection| not_retried(rejection.message))?;
        self.settle(&gone, vec![delta]).await
    }

    /// Reads an object and journals it as it is.
    async fn read(&self, reconciler: &Reconciler, uid: &str, number: u64) -> Result<(), HostError> {
        loop {
            let scope = Scope { uid: Some(uid.to_owned()), gone: true, ..Scope::default() };
            let report = reconciler.read(scope).await?.last;
            let why = match report.outcome {
                Outcome::Ok => return Ok(()),
                Outcome::Superseded => continue,
                Outcome::Failed(failure) => format!("run {} failed ({}): {failure}", report.run, failure.code()),
                Outcome::Held(why) => why,
                other => format!("run {} ended {}", report.run, other.name()),
            };
            return Err(HostError::NotRetried { number, why });
        }
    }

    /// Takes dead letters away and journals what goes on then, in one transaction on top of whatever a run wrote meanwhile. `first`: what is
    /// journaled before.
    pub(super) async fn settle(&self, gone: &HashSet<u64>, first: Vec<SyncDelta>) -> Result<Settled, HostError> {
        loop {
            let Some(stored) = self.db.state(&self.key)? else { return Ok(Settled::default()) };
            let letters = self.db.dead_letters(Some(&self.key))?;
            let present = letters.iter().map(|stored| stored.number).filter(|number| gone.contains(number));
            let settled: Vec<u64> = present.collect();
            if settled.is_empty() {
                return Ok(Settled::default());
            }
            let released = released(numbered(&letters), gone);
            let on = letters.iter().filter(|stored| released.contains(&stored.number));
            let deltas: Vec<SyncDelta> =
                first.iter().cloned().chain(on.filter_map(|stored| stored.letter.delta.clone())).collect();
            let packed = pack(&deltas).map_err(CommitError::from)?;
            let at = self.clock.now();
            let state = TypeState { revision: stored.revision + 1, changed_at: at, ..stored.clone() };
            let commit = Commit {
                key: self.key.clone(),
                expected_revision: stored.revision,
                state: state.clone(),
                staged: Vec::new(),
                batches: vec![packed],
                letters: Letters { kept: Vec::new(), resolved: [settled.as_slice(), &released].concat() },
                marker: None,
                run: None,
                report: None,
                at,
            };
            match self.db.commit(commit).await {
                // A run committed in between.
                Err(CommitError::Conflict) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    if let Some(requests) = &self.requests {
                        let _ = requests.send(Request::StateChanged { key: self.key.clone(), state }).await;
                    }
                    return Ok(Settled { settled, released });
                }
            }
        }
    }

    /// Takes away all that has to do with some of them, whatever waits for them.
    pub(super) async fn erase(&self, numbers: &[u64]) -> Result<(), HostError> {
        let letters = self.db.dead_letters(Some(&self.key))?;
        let letters = numbered(&letters);
        let gone = numbers.iter().flat_map(|number| related(&letters, *number)).map(|(number, _)| number).collect();
        self.settle(&gone, Vec::new()).await.map(drop)
    }
}
