//! One task per sink: reads entries out of the journal, in order, hands them to the sink, and stores how far it got. A sink that
//! fails is tried again, for ever; it holds up nothing but itself. An entry that it refuses for what it says becomes a dead letter where that
//! is configured: then it holds up only what comes after it of the same object.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use tidewaiter_core::backoff::Backoff;
use tidewaiter_core::journal::Entry;
use tidewaiter_core::refusal::{Letter, Line, Patience, Refused, Turn};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Delivered, ReadError};
use crate::sink::{Journal, Sink, Undelivered};

/// How long a sink that failed waits before it is tried again.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Sink(#[from] Undelivered),
    #[error(transparent)]
    Resume(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("its position can't be stored: {0}")]
    Position(#[from] CommitError),
    #[error("entry {sequence} can't be kept: {problem}")]
    NoRoom { sequence: u64, problem: String },
    #[error("it ended unexpectedly: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl DeliveryError {
    /// How long to wait at least.
    fn wait(&self) -> Duration {
        match self {
            Self::Sink(undelivered) => undelivered.wait,
            _ => Duration::ZERO,
        }
    }
}

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// It has everything up to this sequence but its dead letters.
    pub(crate) upto: u64,
    /// How many dead letters it has, with what waits for them.
    pub(crate) letters: usize,
    /// Why the last attempt failed; none: it didn't.
    pub(crate) problem: Option<String>,
}

/// What others have of a sink's task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// How far it is.
    pub(crate) reached: watch::Receiver<Reached>,
    /// Somebody acted on its dead letters.
    pub(crate) letters: watch::Sender<()>,
}

/// A sink and how far it got.
pub(crate) struct Delivery {
    db: Db,
    clock: Clock,
    name: String,
    sink: Box<dyn Sink>,
    is_ready: bool,
    /// It has everything up to this sequence but its dead letters.
    after: u64,
    line: Line,
    /// Somebody acted on dead letters; the first time they aren't known yet.
    letters: watch::Receiver<()>,
    retry: Backoff,
    reached: watch::Sender<Reached>,
}

impl Delivery {
    /// For a sink that goes on where it was.
    ///
    /// # Errors
    /// The db can't be read.
    pub(crate) fn new(
        (db, clock): (Db, Clock),
        name: String,
        sink: Box<dyn Sink>,
        patience: Patience,
    ) -> Result<(Self, Handle), ReadError> {
        let after = db.sink_position(&name)?;
        let reached = watch::Sender::new(Reached { upto: after, ..Reached::default() });
        let (acted, mut letters) = watch::channel(());
        letters.mark_changed();
        let handle = Handle { reached: reached.subscribe(), letters: acted };
        let line = Line::new(patience);
        Ok((Self { db, clock, name, sink, is_ready: false, after, line, letters, retry: RETRY, reached }, handle))
    }

    fn tell(&self, problem: Option<String>) {
        self.reached.send_replace(Reached { upto: self.after, letters: self.line.letters(), problem });
    }

    fn resume(&mut self) -> io::Result<()> {
        let journal = Journal { incarnation: self.db.incarnation(), last: self.db.last_sequence() };
        self.after = self.sink.resume(journal, self.after)?;
        self.is_ready = true;
        Ok(())
    }

    /// Delivers until it is told that the host closes, and then what is left.
    pub(crate) async fn work(mut self, closing: CancellationToken) {
        let mut durable = self.db.watch();
        let mut failures = 0;
        loop {
            durable.borrow_and_update();
            match self.step(failures == 0).await {
                Ok(true) => failures = 0,
                Ok(false) if closing.is_cancelled() => return,
                Ok(false) => {
                    let news = async {
                        tokio::select! {
                            _ = durable.changed() => {}
                            Ok(()) = self.letters.changed() => self.letters.mark_changed(),
                        }
                    };
                    let _ = closing.run_until_cancelled(news).await;
                }
                Err(error) => {
                    failures += 1;
                    self.is_ready = false;
                    self.tell(Some(error.to_string()));
                    let delay = self.retry_delay(failures).max(error.wait());
                    tracing::error!(
                        target: "tidewaiter::sink", sink = self.name, code = "delivery-failed", position = self.after,
                        failures, again_in_ms = delay.as_millis(), "entries after {} are not delivered: {error}", self.after
                    );
                    if closing.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers what the sink takes at once; false: there is nothing left. `afresh`: nothing is on its way that was sent and not taken.
    async fn step(&mut self, afresh: bool) -> Result<bool, DeliveryError> {
        if !self.is_ready {
            self.resume()?;
        }
        if self.letters.has_changed().unwrap_or(false) {
            self.letters.mark_unchanged();
            self.know_letters().await?;
        }
        let due = self.line.due();
        if due.is_empty() || !afresh {
            let has_delivered = self.deliver_page().await?;
            if has_delivered || due.is_empty() {
                return Ok(has_delivered);
            }
        }
        self.deliver_letters(due).await
    }

    async fn know_letters(&mut self) -> Result<(), DeliveryError> {
        let refused = refused(&self.db, &self.name).await?;
        let letters = refused.into_iter().map(|(entry, is_refused)| Letter::new(&entry, is_refused)).collect();
        self.line.know(letters);
        let problem = self.reached.borrow().problem.clone();
        self.tell(problem);
        Ok(())
    }

    /// Stores what became of entries.
    async fn store(&mut self, delivered: Delivered) -> Result<(), DeliveryError> {
        let (position, changes) = (delivered.position, !(delivered.judged.is_empty() && delivered.gone.is_empty()));
        let kept = delivered.kept.iter().map(|(entry, problem)| Letter::new(entry, problem.is_some()));
        let kept: Vec<Letter> = kept.collect();
        self.db.delivered(&self.name, delivered).await?;
        self.after = position.unwrap_or(self.after);
        match changes {
            true => self.know_letters().await?,
            false => kept.into_iter().for_each(|letter| self.line.keep(letter)),
        }
        self.tell(None);
        Ok(())
    }

    /// Delivers dead letters whose turn has come.
    async fn deliver_letters(&mut self, due: Vec<u64>) -> Result<bool, DeliveryError> {
        let due: HashSet<u64> = due.into_iter().collect();
        let refused = refused(&self.db, &self.name).await?.into_iter();
        let mut entries: Vec<Entry> =
            refused.map(|(entry, _)| entry).filter(|entry| due.contains(&entry.id.sequence)).collect();
        entries.truncate(self.line.at_once(self.sink.entries_max()));
        let Some(first) = entries.first().cloned() else {
            // Somebody was faster.
            self.know_letters().await?;
            return Ok(true);
        };
        let sequences: Vec<u64> = entries.iter().map(|entry| entry.id.sequence).collect();
        let nothing = Delivered::nothing(self.clock.now());
        match self.sink.deliver(entries).await {
            Ok(last) => {
                self.line.taken();
                let gone = sequences.into_iter().filter(|sequence| *sequence <= last).collect();
                self.store(Delivered { gone, ..nothing }).await?;
            }
            // It had its retries.
            Err(Undelivered { problem, refused: true, .. }) if sequences.len() == 1 => {
                self.log_refused(&first, &problem);
                self.store(Delivered { judged: vec![(first.id.sequence, Some(problem))], ..nothing }).await?;
            }
            Err(undelivered) => drop(self.failed(undelivered, sequences.len())?),
        }
        Ok(true)
    }

    /// Delivers what comes next in the journal.
    async fn deliver_page(&mut self) -> Result<bool, DeliveryError> {
        let (db, after, limit) = (self.db.clone(), self.after, self.line.at_once(self.sink.entries_max()));
        let mut entries = spawn_blocking(move || db.entries(after, limit)).await??;
        let count = match self.line.turn(&entries) {
            Turn::Deliver(0) => return Ok(false),
            Turn::Deliver(count) => count,
            Turn::Wait(count) => {
                entries.truncate(count);
                self.keep(entries, None).await?;
                return Ok(true);
            }
        };
        entries.truncate(count);
        let only = entries.first().filter(|_| count == 1).cloned();
        match self.sink.deliver(entries).await {
            Ok(last) => {
                self.line.taken();
                self.store(Delivered::upto(last, self.clock.now())).await?;
            }
            Err(undelivered) => {
                let problem = undelivered.problem.clone();
                if let (true, Some(entry)) = (self.failed(undelivered, count)? == Refused::Never, only) {
                    self.log_refused(&entry, &problem);
                    self.keep(vec![entry], Some(problem)).await?;
                }
            }
        }
        Ok(true)
    }

    /// What to do after a delivery failed; none of its entries is known to be taken.
    fn failed(&mut self, undelivered: Undelivered, handed: usize) -> Result<Refused, Undelivered> {
        match undelivered.refused.then(|| self.line.refused(handed)) {
            Some(next @ (Refused::Fewer | Refused::Never)) => Ok(next),
            Some(Refused::Again) | None => Err(undelivered),
        }
    }

    /// Keeps the first entries that come next as dead letters, and goes on after them.
    async fn keep(&mut self, entries: Vec<Entry>, problem: Option<String>) -> Result<(), DeliveryError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let sequence = first.id.sequence;
        self.line.room_for(&entries).map_err(|problem| DeliveryError::NoRoom { sequence, problem })?;
        let upto = Delivered::upto(last.id.sequence, self.clock.now());
        if problem.is_none() {
            entries
                .iter()
                .for_each(|entry| self.log(entry, "entry-waits", "a dead letter of the same object comes before it"));
        }
        let kept = entries.into_iter().map(|entry| (entry, problem.clone())).collect();
        self.store(Delivered { kept, ..upto }).await
    }

    /// Without random bytes all wait as long as they may.
    fn retry_delay(&self, failures: u32) -> Duration {
        let Self { retry, .. } = self;
        getrandom::u64().map_or_else(|_| retry.bound(failures), |chance| retry.delay(failures, chance))
    }

    fn log_refused(&self, entry: &Entry, problem: &str) {
        self.log(entry, "entry-refused", problem);
    }

    /// Says why an entry is not delivered, so that its object can be looked after by whoever reads it.
    fn log(&self, entry: &Entry, code: &str, why: &str) {
        let (class, uid) =
            entry.body.delta().map_or(("", ""), |delta| (delta.object_class.as_str(), delta.change.uid()));
        tracing::warn!(
            target: "tidewaiter::sink", sink = self.name, code, connection = %entry.key.connection,
            r#type = %entry.key.object_type, class, uid, sequence = entry.id.sequence, "not delivered, kept as a dead letter: {why}"
        );
    }
}

/// The dead letters of a sink, and whether it refused them.
async fn refused(db: &Db, sink: &str) -> Result<Vec<(Entry, bool)>, DeliveryError> {
    let (db, sink) = (db.clone(), sink.to_owned());
    let refused = spawn_blocking(move || db.refused(Some(&sink))).await??;
    Ok(refused.into_values().flatten().map(|one| (one.entry, one.problem.is_some())).collect())
}

#[cfg(test)]
mod tests;
