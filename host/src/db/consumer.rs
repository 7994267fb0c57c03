//! Those who read the journal by themselves and tell how far they got: what is kept of one, and what it may do. Performs nothing.

use serde::{Deserialize, Serialize};
use tidewaiter_core::journal::Incarnation;
use tidewaiter_core::time::UnixMillis;
use utoipa::ToSchema;

/// A named reader with a durable position: entries that it has not acknowledged stay, until it is expired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Consumer {
    /// Of which db its position is.
    pub incarnation: Incarnation,
    /// The last sequence that it has acknowledged.
    pub position: u64,
    /// Expired when more entries than that wait for it; none: never.
    pub max_lag: Option<u64>,
    /// Since when it is known.
    pub created: UnixMillis,
    /// When it acknowledged something last.
    pub acknowledged: Option<UnixMillis>,
    /// Since when entries are dropped without waiting for it.
    pub expired: Option<UnixMillis>,
}

/// Something that a consumer can't do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// No such consumer.
    #[error("there is no consumer {name}")]
    Unknown {
        /// Which.
        name: String,
    },
    /// There is one.
    #[error("there is a consumer {name} already")]
    Exists {
        /// Which.
        name: String,
    },
    /// It was too slow.
    #[error(
        "consumer {name} is expired since {since}: it was too far behind after entry {position}; remove it, and add it again"
    )]
    Expired {
        /// Which.
        name: String,
        /// When that was found.
        since: UnixMillis,
        /// Where it was.
        position: u64,
    },
    /// Its position is one of another db.
    #[error(
        "consumer {name} read the journal {was}, and this one is {is}: it was restored; incarnation-changed; `consumers ack {name} {is}-SEQUENCE` goes on \
         after that entry of it, and `{is}-0` from its beginning"
    )]
    IncarnationChanged {
        /// Which.
        name: String,
        /// Where its position is from.
        was: Incarnation,
        /// This db.
        is: Incarnation,
    },
    /// Entries that are not there yet.
    #[error("consumer {name} can't have entry {sequence}: the last one is {last}")]
    Ahead {
        /// Which.
        name: String,
        /// What it acknowledges.
        sequence: u64,
        /// What there is.
        last: u64,
    },
}

impl Consumer {
    /// One that has everything up to a sequence.
    pub fn new(incarnation: Incarnation, position: u64, max_lag: Option<u64>, now: UnixMillis) -> Self {
        Self { incarnation, position, max_lag, created: now, acknowledged: None, expired: None }
    }

    /// Where it goes on, in this db.
    pub(super) fn resumes(&self, name: &str, incarnation: Incarnation) -> Result<u64, ConsumerError> {
        if let Some(since) = self.expired {
            return Err(ConsumerError::Expired { name: name.to_owned(), since, position: self.position });
        }
        if self.incarnation != incarnation {
            return Err(ConsumerError::IncarnationChanged {
                name: name.to_owned(),
                was: self.incarnation,
                is: incarnation,
            });
        }
        Ok(self.position)
    }

    /// After it acknowledged a sequence; an old one again changes nothing. `knows`: it named the journal too, so that one of another goes on with
    /// this one.
    pub(super) fn acknowledged(
        mut self,
        name: &str,
        incarnation: Incarnation,
        (sequence, knows): (u64, bool),
        last: u64,
        at: UnixMillis,
    ) -> Result<Self, ConsumerError> {
        if knows && self.incarnation != incarnation {
            (self.incarnation, self.position) = (incarnation, sequence);
        }
        self.resumes(name, incarnation)?;
        if sequence > last {
            return Err(ConsumerError::Ahead { name: name.to_owned(), sequence, last });
        }
        self.position = self.position.max(sequence);
        self.acknowledged = Some(at);
        Ok(self)
    }

    /// Whether it is too far behind.
    pub(super) fn is_late(&self, last: u64) -> bool {
        self.expired.is_none() && self.max_lag.is_some_and(|max| last.saturating_sub(self.position) > max)
    }
}
