//! One task per sink: reads entries out of the journal, in order, hands them to the sink, and stores how far it got. A sink that
//! fails is tried again, for ever; it holds up nothing but itself.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tidewaiter_core::journal::{EntryId, Incarnation};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::db::{CommitError, Db, ReadError};
use crate::sink::ndjson::NdjsonSink;

/// Entries handed to a sink at a time; fewer where they are large.
const PAGE_COUNT: usize = 4096;
/// The first delay before a failed delivery is tried again; doubles with each failure in a row.
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest delay.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Sink(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("its position can't be stored: {0}")]
    Position(#[from] CommitError),
    #[error("it ended unexpectedly: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// A sink and how far it got.
pub(crate) struct Delivery {
    db: Db,
    name: String,
    path: PathBuf,
    /// None: to be opened again.
    sink: Option<NdjsonSink>,
    after: u64,
}

impl Delivery {
    /// Opens the sink's file and finds out where to go on.
    ///
    /// # Errors
    /// The file can't be opened, or the db can't be read.
    pub(crate) fn open(db: Db, name: String, path: PathBuf) -> io::Result<Self> {
        let mut delivery = Self { db, name, path, sink: None, after: 0 };
        delivery.after = delivery.db.sink_position(&delivery.name).map_err(io::Error::other)?;
        delivery.reopen()?;
        Ok(delivery)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let (sink, written) = NdjsonSink::open(&self.path)?;
        let resumed = resume(self.after, written, self.db.incarnation(), self.db.last_sequence());
        if let Err(written) = resumed {
            tracing::error!(
                target: "tidewaiter::sink", sink = self.name, path = %self.path.display(), position = self.after,
                "the file's last entry {written} is not in this journal: entries after the stored position follow it"
            );
        }
        self.after = resumed.unwrap_or(self.after);
        self.sink = Some(sink);
        Ok(())
    }

    /// Delivers until it is told that the host closes, and then what is left.
    pub(crate) async fn work(mut self, closing: CancellationToken) {
        let mut durable = self.db.watch();
        let mut failures = 0;
        loop {
            durable.borrow_and_update();
            match self.page().await {
                Ok(true) => failures = 0,
                Ok(false) if closing.is_cancelled() => return,
                Ok(false) => {
                    let _ = closing.run_until_cancelled(durable.changed()).await;
                }
                Err(error) => {
                    failures += 1;
                    self.sink = None;
                    tracing::error!(
                        target: "tidewaiter::sink", sink = self.name, code = "delivery-failed", position = self.after,
                        failures, "entries after {} are not delivered: {error}", self.after
                    );
                    if closing.run_until_cancelled(tokio::time::sleep(retry_delay(failures))).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Delivers one page; false: there is nothing left.
    async fn page(&mut self) -> Result<bool, DeliveryError> {
        if self.sink.is_none() {
            self.reopen()?;
        }
        let (db, after) = (self.db.clone(), self.after);
        let entries = spawn_blocking(move || db.entries(after, PAGE_COUNT)).await??;
        let Some(last) = entries.last().map(|entry| entry.id.sequence) else { return Ok(false) };
        let Some(mut sink) = self.sink.take() else { return Ok(true) };
        let (sink, delivered) = spawn_blocking(move || {
            let delivered = sink.deliver(&entries);
            (sink, delivered)
        })
        .await?;
        delivered?;
        self.sink = Some(sink);
        self.db.set_sink_position(&self.name, last).await?;
        self.after = last;
        Ok(true)
    }
}

/// Where to go on: what is in the file counts, as long as it comes from this journal. It may be ahead of the stored position
/// (a crash came in between), never behind it unless it was taken away.
fn resume(position: u64, written: Option<EntryId>, incarnation: Incarnation, last: u64) -> Result<u64, EntryId> {
    match written {
        None => Ok(position),
        Some(id) if id.incarnation == incarnation && id.sequence <= last => Ok(position.max(id.sequence)),
        Some(id) => Err(id),
    }
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_DELAY_MIN.saturating_mul(1 << (failures - 1).min(16)).min(RETRY_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_after_what_is_in_the_file_if_it_is_this_journals() {
        let (ours, other) = (Incarnation(1), Incarnation(2));
        let id = |incarnation, sequence| Some(EntryId { incarnation, sequence });
        assert_eq!(resume(3, None, ours, 10), Ok(3), "a rotated file");
        assert_eq!(resume(3, id(ours, 7), ours, 10), Ok(7), "a crash before the position was stored");
        assert_eq!(resume(7, id(ours, 3), ours, 10), Ok(7), "a file put in the place of a rotated one");
        assert!(resume(3, id(ours, 11), ours, 10).is_err(), "a journal that lost entries");
        assert!(resume(0, id(other, 5), ours, 10).is_err(), "a new db");
    }
}
