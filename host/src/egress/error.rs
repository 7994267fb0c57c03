//! Why a request did not leave, or no answer came. Told to the guest as a code of WASI, to the operator in words.

use std::net::IpAddr;
use std::time::Duration;

use tidewaiter_core::grant::address::AddressKind;
use tidewaiter_core::grant::destination::BadDestination;
use tidewaiter_core::grant::policy::Denied;

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It may not leave.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Where it goes can't be told.
    #[error("the request's destination: {0}")]
    Destination(#[from] BadDestination),
    /// A name that nothing it asks for over TCP has.
    #[error("{0} is no host that was asked for over TCP")]
    Name(String),
    /// It does something more often than any connector needs.
    #[error("more than {max} {what} in a run")]
    Many {
        /// What.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// It asks for another protocol, or for a tunnel.
    #[error("{0} is not sent for connectors")]
    Method(String),
    /// Its URL is longer than any that is sent.
    #[error("a URL of {bytes} bytes; at most {max} are sent")]
    Url {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A name has no address, or can't be resolved.
    #[error("{name} can't be resolved: {problem}")]
    Resolve {
        /// Which.
        name: String,
        /// Why.
        problem: String,
    },
    /// A name leads to where its grant doesn't.
    #[error("{host} leads to {address}, which is a {kind} address that the grant of it doesn't name")]
    Address {
        /// Which.
        host: String,
        /// Where it leads.
        address: IpAddr,
        /// What that is.
        kind: AddressKind,
    },
    /// All that it may have open is open.
    #[error("no more than {max} {what} at a time")]
    Busy {
        /// Requests, or connections of this host.
        what: &'static str,
        /// How many there are.
        max: usize,
    },
    /// Nobody answers there.
    #[error("{to} can't be connected to: {problem}")]
    Connect {
        /// Where.
        to: String,
        /// Why.
        problem: String,
    },
    /// Whoever answers is not trusted, or doesn't speak TLS.
    #[error("TLS with {to}: {problem}")]
    Tls {
        /// Where.
        to: String,
        /// Its certificate is not one that is trusted.
        untrusted: bool,
        /// Why.
        problem: String,
    },
    /// A login can't be put in.
    #[error("the credential {name}: {problem}")]
    Credential {
        /// Which.
        name: String,
        /// Why. Holds no secret.
        problem: String,
    },
    /// There were so many logins that another one might lock the account.
    #[error("{max} logins in an hour are all that are allowed")]
    Logins {
        /// The limit.
        max: u32,
    },
    /// The source refused the login again and again.
    #[error("the login was refused {max} times in this run, and is not tried again")]
    Refused {
        /// So often.
        max: u32,
    },
    /// It took too long.
    #[error("{what} took longer than the {} ms allowed", max.as_millis())]
    TimedOut {
        /// What.
        what: &'static str,
        /// The limit.
        max: Duration,
    },
    /// The answer is larger than what is taken.
    #[error("a response of more than the {max} bytes allowed")]
    ResponseSize {
        /// The limit, in bytes.
        max: u64,
    },
    /// What came is no answer, or the connection broke.
    #[error("{to}: {problem}")]
    Protocol {
        /// From where.
        to: String,
        /// What.
        problem: String,
    },
}

impl EgressError {
    /// What became of TLS.
    pub(super) fn of_tls(to: &str, error: &rustls::Error) -> Self {
        let untrusted = matches!(error, rustls::Error::InvalidCertificate(_));
        Self::Tls { to: to.to_owned(), untrusted, problem: error.to_string() }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Destination(_) => "egress.bad_destination",
            Self::Name(_) => "egress.not_asked",
            Self::Many { .. } => "egress.too_many",
            Self::Method(_) => "egress.method_refused",
            Self::Url { .. } => "egress.url_too_long",
            Self::Resolve { .. } => "egress.not_resolved",
            Self::Address { .. } => "egress.address_not_granted",
            Self::Busy { .. } => "egress.busy",
            Self::Connect { .. } => "egress.not_connected",
            Self::Tls { .. } => "egress.tls",
            Self::Credential { .. } => "egress.credential",
            Self::Logins { .. } => "egress.login_limit",
            Self::Refused { .. } => "egress.login_refused",
            Self::TimedOut { .. } => "egress.timed_out",
            Self::ResponseSize { .. } => "egress.response_too_large",
            Self::Protocol { .. } => "egress.protocol",
        }
    }

    /// Whether a rule stopped it, and not the world outside.
    pub fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::Denied(_)
                | Self::Destination(_)
                | Self::Name(_)
                | Self::Many { .. }
                | Self::Method(_)
                | Self::Url { .. }
                | Self::Address { .. }
                | Self::Logins { .. }
                | Self::Refused { .. }
        )
    }
}
