//! What a process ends with when something went wrong: an exit code, and one line that says what.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use tidewaiter_core::text::with_causes;

use crate::config::ConfigError;
use crate::db::OpenError;
use crate::host::StartError;
use crate::host::ask::{Problem, ProblemCode};

/// The exit codes of `tidewaiter --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// The reader of standard output has seen enough.
    Done = 0,
    Host = 1,
    Usage = 2,
    Unknown = 3,
    RunFailed = 4,
    Refused = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Something went wrong.
#[derive(Debug)]
pub(super) struct Fail {
    pub(super) exit: Exit,
    /// None: it has been told already.
    message: Option<String>,
}

impl Fail {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self { exit, message: Some(message.to_string()) }
    }

    pub(super) fn told(exit: Exit) -> Self {
        Self { exit, message: None }
    }

    pub(super) fn enough() -> Self {
        Self::told(Exit::Done)
    }

    pub(super) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, with_causes(error))
    }

    pub(super) fn other_answer() -> Self {
        Self::new(Exit::Host, "the running host answered something else: is it another version of tidewaiter?")
    }

    /// Says it on standard error, if anybody listens there.
    pub(super) fn tell(&self) {
        if let Some(message) = &self.message {
            let _ = writeln!(std::io::stderr(), "tidewaiter: {message}");
        }
    }
}

impl Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or_default())
    }
}

impl From<ConfigError> for Fail {
    fn from(error: ConfigError) -> Self {
        Self::of(Exit::Usage, &error)
    }
}

impl From<StartError> for Fail {
    fn from(error: StartError) -> Self {
        let exit = match &error {
            StartError::Db(OpenError::Owned { .. }) => Exit::Refused,
            StartError::Trust(_) | StartError::Key(_) | StartError::Trace(_) => Exit::Usage,
            StartError::Db(_)
            | StartError::State(_)
            | StartError::Engine(_)
            | StartError::Sink { .. }
            | StartError::Audit(_)
            | StartError::Access(_)
            | StartError::Erase(_)
            | StartError::Approval(_)
            | StartError::Ended(_) => Exit::Host,
        };
        Self::of(exit, &error)
    }
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        let exit = match problem.code {
            ProblemCode::BadRequest | ProblemCode::Broken | ProblemCode::Configuration => Exit::Usage,
            ProblemCode::Unknown | ProblemCode::IncarnationChanged | ProblemCode::Dropped => Exit::Unknown,
            ProblemCode::TokenLost
            | ProblemCode::Held
            | ProblemCode::Paused
            | ProblemCode::Cancelled
            | ProblemCode::Exists
            | ProblemCode::Quarantined
            | ProblemCode::Busy
            | ProblemCode::ShuttingDown
            | ProblemCode::Changed
            | ProblemCode::NotAllowed
            | ProblemCode::Consumer => Exit::Refused,
            ProblemCode::Host | ProblemCode::Gone => Exit::Host,
        };
        Self::new(exit, problem.message)
    }
}
