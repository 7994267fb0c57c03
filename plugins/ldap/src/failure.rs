//! What a server says no with: which kind of failure a result code of RFC 4511 (appendix A) or RFC 4533 is, and what an operator can do.

use tidewaiter_connector::{Error, ErrorKind};

pub(crate) const SUCCESS: i64 = 0;
pub(crate) const REFERRAL: i64 = 10;
pub(crate) const NO_SUCH_OBJECT: i64 = 32;
const CONSTRAINT: i64 = 19;
const UNWILLING: i64 = 53;
pub(crate) const SYNC_REFRESH_REQUIRED: i64 = 4096;

/// The result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        self.code == SUCCESS
    }

    /// None: it did what it was asked for.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        if self.is_success() { Ok(()) } else { Err(self.error(what)) }
    }

    /// The same of a login, of which some codes say something else: 389 refuses with them after too many, and who is inactive.
    pub(crate) fn check_login(&self, what: &str) -> Result<(), Error> {
        match self.code {
            CONSTRAINT | UNWILLING => Err(self.error_of(what, (ErrorKind::InvalidCredential, ""))),
            _ => self.check(what),
        }
    }

    /// The error that it is; `what` was being done, and where.
    pub(crate) fn error(&self, what: &str) -> Error {
        self.error_of(what, kind(self.code))
    }

    fn error_of(&self, what: &str, (kind, advice): (ErrorKind, &str)) -> Error {
        let said = if self.message.is_empty() { String::new() } else { format!(": {}", self.message.trim_end()) };
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        Error::new(kind, format!("{what}: the server says {} ({}){said}{advice}", name(self.code), self.code))
    }

    /// Whether the server says that it can't go on from the cookie that it was given.
    pub(crate) fn is_of_cookie(&self) -> bool {
        self.code == SYNC_REFRESH_REQUIRED || self.code == UNWILLING && self.message.contains("newer than provider")
    }
}

fn kind(code: i64) -> (ErrorKind, &'static str) {
    match code {
        3 | 4 | 11 => (
            ErrorKind::Other,
            "a part would look like all there is: let the server give this login everything \
             (slapd: `limits`; 389: nsSizeLimit, nsTimeLimit, nsLookThroughLimit, nsPagedSizeLimit)",
        ),
        8 | 13 => (ErrorKind::Configuration, "it wants TLS: see the setting `tls`"),
        REFERRAL => (ErrorKind::Configuration, "another server has it: name that one in `server`"),
        12 => (ErrorKind::Configuration, "it doesn't offer what `changes` needs for this base"),
        NO_SUCH_OBJECT => (ErrorKind::Configuration, "either it isn't there, or this login may not see it"),
        34 => (ErrorKind::Configuration, "it is no distinguished name"),
        48 | 49 => (ErrorKind::InvalidCredential, ""),
        50 => (ErrorKind::PermissionDenied, ""),
        51 => (ErrorKind::Retryable, ""),
        52 => (ErrorKind::ConnectionFailed, ""),
        SYNC_REFRESH_REQUIRED => (ErrorKind::InvalidSyncToken, ""),
        _ => (ErrorKind::Other, ""),
    }
}

fn name(code: i64) -> &'static str {
    match code {
        1 => "operations error",
        2 => "protocol error",
        3 => "time limit exceeded",
        4 => "size limit exceeded",
        7 => "authentication method not supported",
        8 => "stronger authentication required",
        REFERRAL => "referral",
        11 => "administrative limit exceeded",
        12 => "unavailable critical extension",
        13 => "confidentiality required",
        16 => "no such attribute",
        17 => "undefined attribute type",
        18 => "inappropriate matching",
        CONSTRAINT => "constraint violation",
        21 => "invalid attribute syntax",
        NO_SUCH_OBJECT => "no such object",
        34 => "invalid DN syntax",
        48 => "inappropriate authentication",
        49 => "invalid credentials",
        50 => "insufficient access rights",
        51 => "busy",
        52 => "unavailable",
        UNWILLING => "unwilling to perform",
        SYNC_REFRESH_REQUIRED => "a refresh is required",
        _ => "no",
    }
}
