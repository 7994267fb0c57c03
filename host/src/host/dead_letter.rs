//! What operators do about dead letters: look at them, have their objects told as they are now, or give them up. What waited for them goes
//! on then, in its order.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tidewaiter_core::dead_letter::{DataFaults, DeadLetter, related, released};
use tidewaiter_core::inspect::Inspector;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::object::SyncDelta;
use tidewaiter_core::run::Outcome;
use tidewaiter_core::schema::Operation;
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;
use utoipa::ToSchema;

use super::act::{Acting, Written};
use super::reconcile::Reconciler;
use super::refused::{OfSink, refused};
use super::{Host, HostError};
use crate::audit::Event;
use crate::db::{CommitError, Db, Letters, Sensitive, StoredLetter, Told, pack};
use crate::sink::render;

/// A dead letter, as people see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// The sink that hasn't got it, though the journal has; none: it isn't journaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// The sequence of its entry, if it is a sink's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// What came, as a sink has it, with what is sensitive masked; none: it was too large to be kept, or isn't asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub delta: Option<Json>,
}

impl LetterView {
    fn new(stored: StoredLetter) -> Self {
        let StoredLetter { number, key, run, at, letter, .. } = stored;
        let DeadLetter { object_class: class, uid, previous_uid, kind, fault, .. } = letter;
        let (sink, sequence, delta) = Default::default();
        Self { number, key, class, uid, previous_uid, kind, fault, run, at, sink, sequence, delta }
    }

    fn with_delta(stored: StoredLetter, sensitive: &Sensitive) -> Self {
        let delta = stored.letter.delta.as_ref();
        let delta = delta.map(|delta| render::masked_delta(&stored.key.connection, delta, sensitive));
        Self { delta, ..Self::new(stored) }
    }
}

/// What became of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Settled {
    /// Numbers of those that are done with.
    pub settled: Vec<u64>,
    /// Numbers of those that waited for them, and are journaled now.
    pub released: Vec<u64>,
    /// What is to be known of it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Host {
    /// The dead letters of a connection, or all: each type's in the order in which they came, and then each sink's.
    ///
    /// # Errors
    /// There is no such connection, and none is of one that was called so; or the db.
    pub async fn dead_letters(&self, of: Option<&ConnectionName>) -> Result<Vec<LetterView>, HostError> {
        let letters = self.db.read_dead_letters(None).await?.into_iter();
        let wanted = letters.filter(|stored| of.is_none_or(|of| stored.key.connection == *of));
        let mut found: Vec<LetterView> = wanted.map(LetterView::new).collect();
        let of_sinks = refused(&self.db, None).await?.into_iter();
        let wanted = of_sinks.filter(|(_, one)| of.is_none_or(|of| one.entry.key.connection == *of));
        found.extend(wanted.map(LetterView::of_sink));
        match of.filter(|of| found.is_empty() && !self.config().connections.contains_key(*of)) {
            Some(unknown) => Err(HostError::UnknownConnection(unknown.clone())),
            None => Ok(found),
        }
    }

    /// A dead letter, with what came. It is written down who reads it.
    ///
    /// # Errors
    /// There is none of that number, the db, or the audit.
    pub async fn dead_letter(&self, number: u64, by: &Actor) -> Result<LetterView, HostError> {
        let sensitive = self.db.sensitive()?;
        let shown = match letter(&self.db, number).await? {
            Letter::OfType(stored) => LetterView::with_delta(stored, &sensitive),
            Letter::OfSink(of) => LetterView::of_sink_with_delta(of, &sensitive),
        };
        let (by, entry) = (by.to_string(), format!("dead letter {number}"));
        self.audit.note(&Event::Read { by, entries: [entry.clone(), entry], sensitive: false })?;
        Ok(shown)
    }

    /// Has the object of a dead letter told as it is now, and is done with all that are kept of it: where the connector reads objects by their uid, as
    /// it is in the source, and otherwise as it came, if nothing is wrong with it any more and nothing waits for it. One of a sink is sent to it again.
    ///
    /// # Errors
    /// There is none of that number, it can't be done, or what is read is at fault still.
    pub async fn retry_dead_letter(&self, number: u64, by: Actor) -> Result<Settled, HostError> {
        let stored = match letter(&self.db, number).await? {
            Letter::OfType(stored) => stored,
            Letter::OfSink(of) => return self.send_again(of, by).await,
        };
        let reconciler = self.reconciler(&stored.key)?;
        let (audit, settling) = (self.audit.clone(), self.settling(stored.key.clone()));
        self.act(async move {
            audit.act(&by, "dead-letters retry", format!("{} {number}", stored.key)).await?;
            match reconciler.connection.connector.info().does(Operation::SearchByUid) {
                true => settling.read(&reconciler, number).await,
                false => settling.tell(&reconciler, stored).await,
            }
        })
        .await
    }

    /// Gives a dead letter up: it is never told, or never delivered to its sink, and what waits for it is.
    ///
    /// # Errors
    /// There is none of that number, it only waits for another one, or the db.
    pub async fn drop_dead_letter(&self, number: u64, by: Actor) -> Result<Settled, HostError> {
        let stored = match letter(&self.db, number).await? {
            Letter::OfType(stored) => stored,
            Letter::OfSink(of) => return self.give_up(of, by).await,
        };
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
            settling.settle(&HashSet::from([number]), None).await
        })
        .await
    }

    fn settling(&self, key: TypeKey) -> Settling {
        Settling(self.acting(key))
    }
}

/// A dead letter, of either kind.
enum Letter {
    OfType(StoredLetter),
    OfSink(OfSink),
}

async fn letter(db: &Db, number: u64) -> Result<Letter, HostError> {
    let of_type = db.read_dead_letters(None).await?.into_iter().find(|stored| stored.number == number);
    if let Some(stored) = of_type {
        return Ok(Letter::OfType(stored));
    }
    let of_sink = refused(db, None).await?.into_iter().find(|(_, one)| one.number == number);
    of_sink.map(Letter::OfSink).ok_or(HostError::NoSuchLetter { number })
}

fn numbered(letters: &[StoredLetter]) -> Vec<(u64, &DeadLetter)> {
    letters.iter().map(|stored| (stored.number, &stored.letter)).collect()
}

/// Deltas that waited, as they would have been journaled when they came: those of one run together.
fn told<'a>(letters: impl Iterator<Item = &'a StoredLetter>) -> Result<Vec<Told>, CommitError> {
    let mut all: Vec<(u64, Option<u64>, Vec<SyncDelta>)> = Vec::new();
    for StoredLetter { generation, run, letter, .. } in letters {
        let Some(delta) = letter.delta.clone() else { continue };
        match all.last_mut().filter(|(of, by, _)| (of, by) == (generation, run)) {
            Some((.., deltas)) => deltas.push(delta),
            None => all.push((*generation, *run, vec![delta])),
        }
    }
    let packed = |(generation, run, deltas): (u64, Option<u64>, Vec<SyncDelta>)| {
        Ok(Told { generation, run, deltas: pack(&deltas)? })
    };
    all.into_iter().map(packed).collect()
}

/// What is done with dead letters of a type.
pub(super) struct Settling(pub(super) Acting);

impl Settling {
    async fn letters(&self) -> Result<Vec<StoredLetter>, HostError> {
        Ok(self.0.db.read_dead_letters(Some(self.0.key.clone())).await?)
    }

    /// Has the object read and told, in one run and one transaction with all that are kept of it.
    async fn read(&self, reconciler: &Reconciler, number: u64) -> Result<Settled, HostError> {
        let letters = self.letters().await?;
        let about = related(&numbered(&letters), number).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        let report = reconciler.read_letter(number).await?;
        let why = match report.outcome {
            Outcome::Ok => {
                let left: HashSet<u64> = self.letters().await?.iter().map(|stored| stored.number).collect();
                let settled = about.into_iter().filter(|number| !left.contains(number)).collect();
                return Ok(Settled { settled, ..Settled::default() });
            }
            Outcome::Failed(failure) => format!("run {} failed ({}): {failure}", report.run, failure.code()),
            Outcome::Held(why) => why,
            other => format!("run {} ended {}", report.run, other.name()),
        };
        Err(HostError::NotRetried { number, why })
    }

    /// Has what came told, if nothing is wrong with it by now.
    async fn tell(&self, reconciler: &Reconciler, stored: StoredLetter) -> Result<Settled, HostError> {
        let (number, connection) = (stored.number, &reconciler.connection);
        let not_retried = |why: String| HostError::NotRetried { number, why };
        let letters = self.letters().await?;
        let related = related(&numbered(&letters), number);
        if let Some((other, _)) = related.iter().find(|(other, _)| *other != number) {
            let connector = &connection.config.connector;
            let why =
                format!("connector {connector} reads no object by its uid, and {other} is kept of the same object");
            return Err(not_retried(why));
        }
        let delta =
            stored.letter.delta.as_ref().ok_or_else(|| not_retried("what came was too large to be kept".to_owned()))?;
        // Those that are known may be what was wrong.
        let classes = connection.ask_for_classes(&self.0.key, "a dead letter is tried again").await;
        let classes = classes.map_err(|failure| not_retried(failure.to_string()))?;
        let mut inspector = Inspector::new(classes, connection.config.limits, DataFaults::Fail);
        inspector.open(&connection.class(&self.0.key.object_type));
        inspector.emit(std::slice::from_ref(delta), None).map_err(|rejection| not_retried(rejection.message))?;
        self.settle(&HashSet::from([number]), Some(&stored)).await
    }

    /// Takes dead letters away and journals what goes on then, in one transaction on top of whatever a run wrote meanwhile. `told`: one of them
    /// that is told all the same, before the others.
    async fn settle(&self, gone: &HashSet<u64>, told: Option<&StoredLetter>) -> Result<Settled, HostError> {
        loop {
            let Some(stored) = self.0.db.state(&self.0.key)? else { return Ok(Settled::default()) };
            let letters = self.letters().await?;
            let settled: Vec<u64> =
                letters.iter().map(|one| one.number).filter(|number| gone.contains(number)).collect();
            if settled.is_empty() {
                return Ok(Settled::default());
            }
            let released = released(numbered(&letters), gone);
            let on = told.into_iter().chain(letters.iter().filter(|one| released.contains(&one.number)));
            let resolved = [settled.as_slice(), &released].concat();
            let letters = Letters { told: self::told(on)?, resolved, kept: Vec::new() };
            let at = self.0.clock.now();
            let expected_revision = stored.revision;
            let state = TypeState { revision: expected_revision + 1, changed_at: at, ..stored };
            if self.0.write(Written { expected_revision, state, marker: None, letters, at }).await? {
                return Ok(Settled { settled, released, ..Settled::default() });
            }
        }
    }

    /// Takes some away, whatever waits for them. For what is to be forgotten with all that has to do with it.
    pub(super) async fn forget(&self, numbers: HashSet<u64>) -> Result<(), HostError> {
        self.settle(&numbers, None).await.map(drop)
    }
}
