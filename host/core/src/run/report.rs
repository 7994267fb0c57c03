//! What is known of a run when it is over: why it began, how it ended, what it used. Kept in the run history, and read back from
//! older ones: fields are only added, with defaults.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::inspect::{Rejection, RejectionCode};
use crate::name::TypeKey;
use crate::text::erase;
use crate::time::UnixMillis;
use crate::token::SyncToken;

/// Why a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The schedule.
    Schedule,
    /// The command line.
    Command,
    /// The HTTP API.
    Api,
    /// A failed run is tried again.
    Retry,
    /// The run before ended because its budget was spent.
    Continue,
    /// Objects are read as they are now.
    Reconcile,
    /// Another revision of its connector runs it from now on.
    Revision,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schedule => "schedule",
            Self::Command => "command",
            Self::Api => "api",
            Self::Retry => "retry",
            Self::Continue => "continue",
            Self::Reconcile => "reconcile",
            Self::Revision => "revision",
        })
    }
}

/// The contract's `error-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the cases are documented in wit/types.wit")]
pub enum ErrorKind {
    Configuration,
    InvalidCredential,
    PermissionDenied,
    ConnectionFailed,
    ConnectionBroken,
    TimedOut,
    RateLimited,
    Retryable,
    UnknownObjectClass,
    InvalidSyncToken,
    Unsupported,
    Internal,
    Other,
}

/// An error that a connector answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, ToSchema)]
#[error("{message}")]
pub struct ConnectorError {
    /// What kind.
    pub kind: ErrorKind,
    /// In the connector's words.
    pub message: String,
    /// Not before this many milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// Why a run failed. The three families (the connector answered an error, it crashed or broke the contract, we failed) stay
/// apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "family")]
pub enum Failure {
    /// The connector answered an error.
    #[error("connector error: {0}")]
    Connector(ConnectorError),
    /// The connector trapped, or was ended at a limit.
    #[error("trapped: {message}")]
    Trapped {
        /// A stable code: `trap.unreachable`, `limit.memory-bytes`, `limit.call-time`…
        code: String,
        /// What happened, for people.
        message: String,
    },
    /// The connector broke the contract.
    #[error("{}: {message}", if code == RejectionCode::DataFault.as_str() { "data at fault" } else { "contract violation" })]
    Contract {
        /// The rejection's code.
        code: String,
        /// What was handed over.
        message: String,
        /// The object concerned.
        uid: Option<String>,
    },
    /// The host failed.
    #[error("host error: {message}")]
    Host {
        /// What happened.
        message: String,
    },
}

impl Failure {
    /// The stable code of the failure, for logs and answers.
    pub fn code(&self) -> String {
        match self {
            Self::Connector(error) => format!("connector.{}", kebab(error.kind)),
            Self::Trapped { code, .. } => code.clone(),
            Self::Contract { code, .. } => format!("contract.{code}"),
            Self::Host { .. } => "host".to_owned(),
        }
    }

    /// Whether it says something of the connector, and not of its source, the settings, the data or this host.
    pub fn is_the_connectors(&self) -> bool {
        match self {
            // It was ended at what the operator granted.
            Self::Trapped { code, .. } => !code.starts_with("egress."),
            Self::Contract { code, .. } => code != RejectionCode::DataFault.as_str(),
            Self::Connector(_) | Self::Host { .. } => false,
        }
    }

    /// Whether the source refuses the token.
    pub fn refuses_token(&self) -> bool {
        matches!(self, Self::Connector(error) if error.kind == ErrorKind::InvalidSyncToken)
    }

    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Connector(error) => error.retry_after_ms,
            _ => None,
        }
    }
}

fn kebab(kind: ErrorKind) -> String {
    let name = serde_json::to_value(kind).ok();
    name.as_ref().and_then(|name| name.as_str()).unwrap_or("other").to_owned()
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let Rejection { code, message, uid, .. } = rejection;
        Self::Contract { code: code.as_str().to_owned(), message, uid }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything that the source had is journaled.
    Ok,
    /// Ended at a checkpoint because its budget was spent: there may be more, and the next run is due at once.
    More,
    /// Ended at a checkpoint because the host shuts down.
    Stopped,
    /// The db has no room; in its words. Goes on when there is some.
    Held(String),
    /// More came than the guard lets pass; in its words. What came after the last commit is not journaled, and comes again.
    Guarded(String),
    /// An operator set or reset the token meanwhile; that wins.
    Superseded,
    /// It failed; what was checkpointed is kept.
    Failed(Failure),
    /// It failed with a connector that is on trial: nothing of it is kept, and what ran before goes on from the same token.
    WentBack(Failure),
}

impl Outcome {
    /// The names of all cases.
    pub const NAMES: [&'static str; 8] =
        ["ok", "more", "stopped", "held", "guarded", "superseded", "failed", "went-back"];

    /// Whether trying again changes nothing before somebody changes the settings.
    pub fn is_misconfigured(&self) -> bool {
        let kind = ErrorKind::Configuration;
        matches!(self, Self::Failed(Failure::Connector(error)) if error.kind == kind)
    }

    /// Whether the source refused the login.
    pub fn is_refused_login(&self) -> bool {
        let kind = ErrorKind::InvalidCredential;
        matches!(self, Self::Failed(Failure::Connector(error)) if error.kind == kind)
    }

    /// The name of the case, for logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::More => "more",
            Self::Stopped => "stopped",
            Self::Held(_) => "held",
            Self::Guarded(_) => "guarded",
            Self::Superseded => "superseded",
            Self::Failed(_) => "failed",
            Self::WentBack(_) => "went-back",
        }
    }
}

/// What is known of a run when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunReport {
    /// Its number.
    pub run: u64,
    /// Of which type.
    pub key: TypeKey,
    /// Why it began.
    pub trigger: Trigger,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: UnixMillis,
    /// The token that it began with.
    pub token_in: Option<SyncToken>,
    /// The token that is held now.
    pub token_out: Option<SyncToken>,
    /// Deltas journaled.
    pub deltas: u64,
    /// Deltas kept out of the journal, as dead letters or because they wait for one.
    #[serde(default)]
    pub dead_letters: u64,
    /// Deltas handed over and not journaled: no checkpoint covered them, so the next run gets them again.
    pub dropped: u64,
    /// Size of the deltas journaled, in bytes as they were handed over.
    #[serde(default)]
    pub bytes: u64,
    /// Runs that had failed in a row before this one.
    #[serde(default)]
    pub retries: u32,
    /// What the instance used.
    #[serde(default)]
    pub spent: Spent,
    /// How it ended.
    pub outcome: Outcome,
}

impl RunReport {
    /// Of a run that did nothing, and knows of no token.
    pub fn of_nothing(run: u64, key: TypeKey, trigger: Trigger, at: UnixMillis, outcome: Outcome) -> Self {
        let (token_in, token_out, deltas, dead_letters, dropped, bytes, retries, spent) = Default::default();
        let (started, ended) = (at, at);
        Self {
            run,
            key,
            trigger,
            started,
            ended,
            token_in,
            token_out,
            deltas,
            dead_letters,
            dropped,
            bytes,
            retries,
            spent,
            outcome,
        }
    }
}

/// What a run used, of its limits and otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Spent {
    /// The most memory that its instance held, in bytes: all memories and tables together.
    pub memory_peak_bytes: u64,
    /// The most elements that its tables had, together.
    pub table_elements_peak: u64,
    /// The most resource handles that it held at once.
    pub resources_peak: u64,
    /// The largest token that it handed over, in bytes.
    pub token_peak_bytes: u64,
    /// Processor time of its calls, in microseconds.
    pub cpu_us: u64,
    /// Its longest call, in milliseconds.
    pub call_peak_ms: u64,
    /// Host calls that did not come back in time.
    pub abandoned_calls: u32,
    /// The most deltas of one batch.
    pub batch_peak_count: u64,
    /// The largest batch, in bytes.
    pub batch_peak_bytes: u64,
    /// The largest delta, in bytes.
    pub object_peak_bytes: u64,
    /// The most bytes that no checkpoint covered.
    pub uncovered_peak_bytes: u64,
    /// The most bytes that were held in memory.
    pub held_peak_bytes: u64,
    /// The longest line of its log, in bytes, before it was cut.
    pub log_line_peak_bytes: u64,
    /// Lines of its log, with those that were too many.
    pub log_lines: u64,
    /// HTTP requests, with those that didn't leave.
    pub http_requests: u64,
    /// HTTP requests that a rule stopped.
    pub http_denied: u64,
    /// The most HTTP requests under way at the same time.
    pub http_requests_peak: u64,
    /// The most connections to the outside that were open for its connection.
    pub sockets_peak: u64,
    /// TCP connections that were begun.
    pub tcp_connections: u64,
    /// The most of them that it had open.
    pub tcp_sockets_peak: u64,
    /// TLS handshakes over them that went well.
    pub tls_connections: u64,
    /// Bytes of bodies that came over HTTP.
    pub http_received_bytes: u64,
    /// The largest body that came, in bytes.
    pub http_response_peak_bytes: u64,
    /// Headers of its own that a login took the place of.
    pub http_headers_replaced: u64,
    /// When the change was made that its last delta is about, by the clock of the source; none: the source doesn't say.
    pub source_time: Option<UnixMillis>,
    /// The last lines that it logged.
    pub log: Vec<String>,
}

impl RunReport {
    /// Takes a uid out of its words. Answers whether it was in them.
    pub fn forget(&mut self, uid: &str) -> bool {
        let mut found = false;
        let mut take = |text: &mut String| found |= erase(text, uid);
        self.spent.log.iter_mut().for_each(&mut take);
        match &mut self.outcome {
            Outcome::Failed(failure) | Outcome::WentBack(failure) => match failure {
                Failure::Connector(error) => take(&mut error.message),
                Failure::Trapped { message, .. } | Failure::Host { message } => take(message),
                Failure::Contract { message, uid: of, .. } => {
                    take(message);
                    of.iter_mut().for_each(take);
                }
            },
            Outcome::Ok
            | Outcome::More
            | Outcome::Stopped
            | Outcome::Held(_)
            | Outcome::Guarded(_)
            | Outcome::Superseded => {}
        }
        found
    }

    /// Not before this many milliseconds the run should be tried again, says the connector.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Failed(failure) => failure.retry_after_ms(),
            _ => None,
        }
    }
}
