//! What an operator does to the state of a type: written in one transaction on top of whatever a run wrote meanwhile, and told to the scheduler, so that it wins
//! over a run under way.

use tidewaiter_core::journal::Marker;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::state::{Actor, TypeState};
use tidewaiter_core::time::UnixMillis;
use tokio::sync::mpsc;

use super::HostError;
use crate::clock::Clock;
use crate::db::{Commit, CommitError, Db, Letters};
use crate::driver::Request;

/// The type that is acted on, whether or not whoever asked is there still.
pub(super) struct Acting {
    pub(super) db: Db,
    pub(super) clock: Clock,
    /// Where the scheduler is told; none: nothing runs yet.
    pub(super) requests: Option<mpsc::Sender<Request>>,
    pub(super) key: TypeKey,
}

/// What an act writes.
pub(super) struct Written {
    /// The revision of the state that it was made of.
    pub(super) expected_revision: u64,
    /// What it makes of it; its revision is the next one.
    pub(super) state: TypeState,
    /// What the journal has of it.
    pub(super) marker: Option<(Marker, Actor)>,
    /// What it makes of dead letters.
    pub(super) letters: Letters,
    pub(super) at: UnixMillis,
}

impl Acting {
    /// Writes an act. False: a run wrote in between, and the act is to be made anew of what is there now.
    pub(super) async fn write(&self, written: Written) -> Result<bool, HostError> {
        let Written { expected_revision, state, marker, letters, at } = written;
        let commit = Commit {
            key: self.key.clone(),
            expected_revision,
            state: state.clone(),
            staged: Vec::new(),
            batches: Vec::new(),
            letters,
            marker,
            run: None,
            report: None,
            at,
        };
        match self.db.commit(commit).await {
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => {
                // It may have been written all the same.
                if let Ok(Some(state)) = self.db.state(&self.key) {
                    self.tell(state).await;
                }
                Err(error.into())
            }
            Ok(_) => {
                self.tell(state).await;
                Ok(true)
            }
        }
    }

    async fn tell(&self, state: TypeState) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(Request::StateChanged { key: self.key.clone(), state }).await;
        }
    }
}
