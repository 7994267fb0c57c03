//! One task per sink: reads entries out of the journal, in order, hands them to the sink, and stores how far it got. A sink that
//! fails is tried again, for ever; it holds up nothing but itself. An entry that it refuses for what it says becomes a dead letter where that
//! is configured: then it holds up only what comes after it of the same object.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use tidewaiter_core::backoff::Backoff;
use tidewaiter_core::journal::{Body, Entry};
use tidewaiter_core::refusal::{Letter, Line, Patience, Refused, Turn};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Delivered, ReadError, RefusedEntry};
use crate::sink::{Journal, Sink, Undelivered};

/// How long a sink that failed waits before it is tried again.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

/// How long it waits where a host ends that waits for it.
const LAST_RETRY: Duration = Duration::from_millis(200);

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
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Sink(undelivered) if undelivered.refused)
    }

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
    /// What comes next in the journal goes before dead letters: it was sent and not taken, or it is its turn.
    page_first: bool,
    retry: Backoff,
    reached: watch::Sender<Reached>,
}

impl Delivery {
    /// For a sink that goes on where it was. With it: how far it is, from now on.
    ///
    /// # Errors
    /// The db can't be read.
    pub(crate) fn new(
        (db, clock): (Db, Clock),
        name: String,
        sink: Box<dyn Sink>,
        patience: Patience,
    ) -> Result<(Self, watch::Receiver<Reached>), ReadError> {
        let after = db.sink_position(&name)?;
        let (reached, told) = watch::channel(Reached { upto: after, ..Reached::default() });
        let (line, mut letters) = (Line::new(patience), db.watch_letters());
        letters.mark_changed();
        let (is_ready, page_first, retry) = (false, false, RETRY);
        Ok((Self { db, clock, name, sink, is_ready, after, line, letters, page_first, retry, reached }, told))
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
            match self.step().await {
                Ok(true) => failures = 0,
                Ok(false) if closing.is_cancelled() => return,
                Ok(false) => {
                    failures = 0;
                    self.tell(None);
                    let news = async {
                        tokio::select! {
                            _ = durable.changed() => {}
                            Ok(()) = self.letters.changed() => self.letters.mark_changed(),
                        }
                    };
                    let _ = closing.run_until_cancelled(news).await;
                }
                // The next host would begin to count anew.
                Err(error) if closing.is_cancelled() && self.line.gives_up() && error.is_refusal() => {
                    tokio::time::sleep(LAST_RETRY).await;
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
                    let waits = async {
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            // Somebody made room, or has something sent again.
                            Ok(()) = self.letters.changed(), if error.wait().is_zero() => self.letters.mark_changed(),
                        }
                    };
                    let gives_up = error.is_refusal() && self.line.gives_up();
                    if closing.run_until_cancelled(waits).await.is_none() && !gives_up {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers what the sink takes at once; false: there is nothing left.
    async fn step(&mut self) -> Result<bool, DeliveryError> {
        if !self.is_ready {
            self.resume()?;
        }
        if self.letters.has_changed().unwrap_or(false) {
            self.know_letters().await?;
        }
        let due = self.line.due();
        if due.is_empty() || self.page_first {
            let has_delivered = self.deliver_page().await?;
            if has_delivered || due.is_empty() {
                return Ok(has_delivered);
            }
        }
        self.deliver_letters(due).await
    }

    async fn know_letters(&mut self) -> Result<(), DeliveryError> {
        self.letters.mark_unchanged();
        let known = refused(&self.db, &self.name).await;
        if known.is_err() {
            // Without them what waits would go ahead of them.
            self.letters.mark_changed();
        }
        self.line.know(known?.iter().map(|one| Letter::new(&one.entry, one.is_refused())).collect());
        Ok(())
    }

    /// Stores what became of entries.
    async fn store(&mut self, delivered: Delivered) -> Result<(), DeliveryError> {
        let position = delivered.position;
        let kept = delivered.kept.iter().map(|(entry, problem)| Letter::new(entry, problem.is_some()));
        let kept: Vec<Letter> = kept.collect();
        self.db.delivered(&self.name, delivered).await?;
        self.after = position.unwrap_or(self.after);
        kept.into_iter().for_each(|letter| self.line.keep(letter));
        self.tell(None);
        Ok(())
    }

    /// Delivers dead letters whose turn has come.
    async fn deliver_letters(&mut self, due: Vec<u64>) -> Result<bool, DeliveryError> {
        let due: HashSet<u64> = due.into_iter().collect();
        let letters = refused(&self.db, &self.name).await?.into_iter().map(|one| one.entry);
        let mut entries: Vec<Entry> = letters.filter(|entry| due.contains(&entry.id.sequence)).collect();
        // As in the journal one behind the other: the ids of the first and the last one say what is in between.
        let first_gap = entries.windows(2).position(|pair| pair[0].id.sequence + 1 < pair[1].id.sequence);
        entries.truncate(first_gap.map_or(entries.len(), |gap| gap + 1));
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
                self.log(&first, "entry-refused", &problem);
                self.store(Delivered { judged: vec![(first.id.sequence, Some(problem))], ..nothing }).await?;
            }
            Err(undelivered) => {
                // One that fails for ever keeps nothing else from going.
                self.page_first = !undelivered.refused;
                self.failed(undelivered, first.id.sequence, sequences.len())?;
            }
        }
        Ok(true)
    }

    /// Delivers what comes next in the journal.
    async fn deliver_page(&mut self) -> Result<bool, DeliveryError> {
        let (db, after, limit) = (self.db.clone(), self.after, self.line.at_once(self.sink.entries_max()));
        let mut entries = spawn_blocking(move || db.entries(after, limit)).await??;
        self.page_first = false;
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
        let (first, only) = (after + 1, entries.first().filter(|_| count == 1).cloned());
        match self.sink.deliver(entries).await {
            Ok(last) => {
                self.line.taken();
                self.store(Delivered::upto(last, self.clock.now())).await?;
            }
            Err(undelivered) => {
                let problem = undelivered.problem.clone();
                // Nothing comes between a request and the same one again.
                self.page_first = !undelivered.refused;
                if let (Refused::Never, Some(entry)) = (self.failed(undelivered, first, count)?, only) {
                    self.keep(vec![entry], Some(problem)).await?;
                }
            }
        }
        Ok(true)
    }

    /// What to do after a delivery failed; none of its entries is known to be taken.
    fn failed(&mut self, undelivered: Undelivered, first: u64, handed: usize) -> Result<Refused, Undelivered> {
        match undelivered.refused.then(|| self.line.refused(first, handed)) {
            Some(Refused::Fewer) if undelivered.wait.is_zero() => Ok(Refused::Fewer),
            Some(Refused::Never) => Ok(Refused::Never),
            Some(Refused::Fewer | Refused::Again) | None => Err(undelivered),
        }
    }

    /// Keeps the first entries that come next as dead letters, as many as may be, and goes on after them.
    async fn keep(&mut self, mut entries: Vec<Entry>, problem: Option<String>) -> Result<(), DeliveryError> {
        let sequence = self.after + 1;
        let room = self.line.room_for(&entries).map_err(|problem| DeliveryError::NoRoom { sequence, problem })?;
        entries.truncate(room);
        // Somebody may have had one erased while it was on its way.
        let (db, after, count) = (self.db.clone(), self.after, entries.len());
        let mut entries = spawn_blocking(move || db.entries(after, count)).await??;
        let Some(last) = entries.last().map(|entry| entry.id.sequence) else { return Ok(()) };
        entries.retain(|entry| !matches!(entry.body, Body::Erased { .. }));
        for entry in &entries {
            match &problem {
                Some(problem) => self.log(entry, "entry-refused", problem),
                None => self.log(entry, "entry-waits", "a dead letter of the same object comes before it"),
            }
        }
        let kept = entries.into_iter().map(|entry| (entry, problem.clone())).collect();
        self.store(Delivered { kept, ..Delivered::upto(last, self.clock.now()) }).await
    }

    /// Without random bytes all wait as long as they may.
    fn retry_delay(&self, failures: u32) -> Duration {
        let Self { retry, .. } = self;
        getrandom::u64().map_or_else(|_| retry.bound(failures), |chance| retry.delay(failures, chance))
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

/// The dead letters of a sink.
async fn refused(db: &Db, sink: &str) -> Result<Vec<RefusedEntry>, DeliveryError> {
    let (db, sink) = (db.clone(), sink.to_owned());
    let refused = spawn_blocking(move || db.refused(Some(&sink))).await??;
    Ok(refused.into_values().flatten().collect())
}

#[cfg(test)]
mod tests;
