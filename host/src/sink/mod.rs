//! Delivery: entries are handed out of the journal, in order, at least once. A sink is handed entries; it doesn't know where
//! they come from, and it can't hold up a run.

pub mod ndjson;
pub mod render;
pub mod webhook;

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidewaiter_core::journal::{Entry, Incarnation};

/// Where entries go. One task at a time works with it.
pub trait Sink: Debug + Send {
    /// The most entries that it is handed at a time.
    fn entries_max(&self) -> usize;

    /// Makes it ready, and says after which sequence to go on, where `after` is the last one that is known to be delivered. Asked
    /// before the first delivery, and after each one that failed.
    ///
    /// # Errors
    /// It can't be made ready.
    fn resume(&mut self, journal: Journal, after: u64) -> io::Result<u64>;

    /// Delivers entries, of which there is at least one, from the first on and as many as it takes at once. Answers the sequence of
    /// the last one that is delivered for good.
    fn deliver(&mut self, entries: Vec<Entry>) -> Delivering<'_>;
}

/// A sink of a program that embeds a host, until it is used.
#[derive(Clone, Debug)]
pub struct OwnSink(Arc<Mutex<Option<Box<dyn Sink>>>>);

impl OwnSink {
    /// For one host.
    pub fn new(sink: Box<dyn Sink>) -> Self {
        Self(Arc::new(Mutex::new(Some(sink))))
    }

    /// The sink, once.
    pub(crate) fn take(&self) -> Option<Box<dyn Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PartialEq for OwnSink {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A delivery, on its way. Dropped, it may have happened or not.
pub type Delivering<'a> = Pin<Box<dyn Future<Output = Result<u64, Undelivered>> + Send + 'a>>;

/// The journal that entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Which.
    pub incarnation: Incarnation,
    /// The last sequence in it.
    pub last: u64,
}

/// What was not delivered, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Undelivered {
    /// Why.
    pub problem: String,
    /// How long whoever refused it wants to be left alone.
    pub wait: Duration,
    /// It was seen, and refused for what it says: one of the entries won't be taken however often it is sent.
    pub refused: bool,
}

impl Undelivered {
    /// For a reason that says nothing of when to try again.
    pub fn because(problem: impl ToString) -> Self {
        Self { problem: problem.to_string(), wait: Duration::ZERO, refused: false }
    }
}
