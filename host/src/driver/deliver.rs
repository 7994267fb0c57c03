//! One task per sink: reads entries out of the journal, in order, hands them to the sink, and stores how far it got. A sink that
//! fails is tried again, for ever; it holds up nothing but itself.

use std::io;
use std::time::Duration;

use tidewaiter_core::backoff::Backoff;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::db::{CommitError, Db, ReadError};
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
pub(crate) struct Delivered {
    /// It has everything up to this sequence.
    pub(crate) upto: u64,
    /// Why the last attempt failed; none: it didn't.
    pub(crate) problem: Option<String>,
}

/// A sink and how far it got.
pub(crate) struct Delivery {
    db: Db,
    name: String,
    sink: Box<dyn Sink>,
    is_ready: bool,
    after: u64,
    delivered: watch::Sender<Delivered>,
}

impl Delivery {
    /// Makes the sink ready and finds out where to go on.
    ///
    /// # Errors
    /// It can't be made ready, or the db can't be read.
    pub(crate) fn open(db: Db, name: String, sink: Box<dyn Sink>) -> io::Result<Self> {
        let after = db.sink_position(&name).map_err(io::Error::other)?;
        let mut delivery = Self { db, name, sink, is_ready: false, after, delivered: watch::Sender::default() };
        delivery.resume()?;
        delivery.tell(None);
        Ok(delivery)
    }

    /// Tells how far it is, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Delivered> {
        self.delivered.subscribe()
    }

    fn tell(&self, problem: Option<String>) {
        self.delivered.send_replace(Delivered { upto: self.after, problem });
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
            match self.page().await {
                Ok(true) => failures = 0,
                Ok(false) if closing.is_cancelled() => return,
                Ok(false) => {
                    let _ = closing.run_until_cancelled(durable.changed()).await;
                }
                Err(error) => {
                    failures += 1;
                    self.is_ready = false;
                    self.tell(Some(error.to_string()));
                    let delay = retry_delay(failures).max(error.wait());
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

    /// Delivers what the sink takes at once; false: there is nothing left.
    async fn page(&mut self) -> Result<bool, DeliveryError> {
        if !self.is_ready {
            self.resume()?;
        }
        let (db, after, limit) = (self.db.clone(), self.after, self.sink.entries_max());
        let entries = spawn_blocking(move || db.entries(after, limit)).await??;
        if entries.is_empty() {
            return Ok(false);
        }
        let last = self.sink.deliver(entries).await?;
        self.db.set_sink_position(&self.name, last).await?;
        self.after = last;
        self.tell(None);
        Ok(true)
    }
}

/// Without random bytes all wait as long as they may.
fn retry_delay(failures: u32) -> Duration {
    getrandom::u64().map_or_else(|_| RETRY.bound(failures), |chance| RETRY.delay(failures, chance))
}
