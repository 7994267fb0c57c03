//! How a connector fails: one error with the contract's kinds. Owns what the kinds of other errors are taken for.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::bindings::tidewaiter::connector::types::ConnectorError;
use crate::changes::Stopped;
use crate::{ErrorKind, Rejection};

/// A failure that the connector understood: a kind that tells the host what to do, and a message for an operator that names
/// the thing and the place, and says what to do. Never put a secret into it.
///
/// ```
/// # use tidewaiter_connector::{Context, Error};
/// fn port(text: &str) -> Result<u16, Error> {
///     text.parse().map_err(|_| Error::configuration(format!("port {text:?} is not a number")))
/// }
///
/// fn people() -> Result<String, Error> {
///     std::fs::read_to_string("/nowhere/people.json").context("reading the people")
/// }
/// assert!(people().unwrap_err().message().starts_with("reading the people: "));
/// # assert!(port("x").is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
    stopped: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {
        /// One constructor for each kind.
        impl Error {
            $($(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

kinds! {
    /// The settings can't work. Waits for the operator.
    configuration => Configuration,
    /// The source does not accept the login.
    invalid_credential => InvalidCredential,
    /// Logged in, but not allowed.
    permission_denied => PermissionDenied,
    /// The source can't be reached.
    connection_failed => ConnectionFailed,
    /// The source went away in the middle.
    connection_broken => ConnectionBroken,
    /// The source took too long.
    timed_out => TimedOut,
    /// The source asks for patience; see [`Error::retry_after`].
    rate_limited => RateLimited,
    /// Anything else that may pass by itself.
    retryable => Retryable,
    /// No such object class, or not one that can be asked for this.
    unknown_object_class => UnknownObjectClass,
    /// The token is expired, trimmed, malformed, or another replica's.
    invalid_sync_token => InvalidSyncToken,
    /// This connector does not do that.
    unsupported => Unsupported,
    /// A bug in the connector.
    internal => Internal,
    /// Nothing of the above.
    other => Other,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, stopped: false }
    }

    /// Not before this long from now.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the operator is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The host asked for no more: not a failure. Return it, after whatever has to be cleaned up.
    pub fn is_stop(&self) -> bool {
        self.stopped
    }

    pub(crate) fn stop() -> Self {
        Self { stopped: true, ..Self::other("the host asked to stop") }
    }

    fn within(mut self, context: impl fmt::Display) -> Self {
        if !self.stopped {
            self.message = format!("{context}: {}", self.message);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when it failed. The kind stays.
pub trait Context<T> {
    /// Puts `context` and a colon before the message.
    fn context(self, context: impl fmt::Display) -> Result<T, Error>;

    /// The same; the text is made only if there is an error.
    fn with_context<D: fmt::Display>(self, context: impl FnOnce() -> D) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|error| error.into().within(context))
    }

    fn with_context<D: fmt::Display>(self, context: impl FnOnce() -> D) -> Result<T, Error> {
        self.map_err(|error| error.into().within(context()))
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        match stopped.rejection() {
            None => Self::stop(),
            Some(rejection) => rejection.clone().into(),
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        let at = rejection.delta_index.map_or(String::new(), |i| format!(" (delta {i} of the batch)"));
        Self::internal(format!("the host refused what it was handed{at}: {}", rejection.message))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown => {
                ErrorKind::ConnectionFailed
            }
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof | Io::NotConnected => {
                ErrorKind::ConnectionBroken
            }
            Io::TimedOut => ErrorKind::TimedOut,
            Io::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Retryable,
        };
        Self::new(kind, error.to_string())
    }
}

/// What came from the source is not the JSON that was expected.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::other(error.to_string())
    }
}

impl From<Error> for ConnectorError {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            retry_after_ms: error.retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl From<ConnectorError> for Error {
    fn from(error: ConnectorError) -> Self {
        Self { retry_after: error.retry_after_ms.map(Duration::from_millis), ..Self::new(error.kind, error.message) }
    }
}
