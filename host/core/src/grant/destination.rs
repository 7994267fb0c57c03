//! Where an HTTP request or a TCP connection goes, and the patterns that say where it may go. A destination is read strictly, so that
//! nobody later reads another one out of the same text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::text::without_secrets;

/// The longest name of a host (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// The longest part of a name.
const LABEL_BYTES_MAX: usize = 63;

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP in clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// Whatever the connector speaks, over TCP.
    Tcp,
}

impl Scheme {
    /// As in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }

    /// The port where none is written.
    const fn port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp => None,
        }
    }

    /// Of a URL.
    fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.name().eq_ignore_ascii_case(text))
    }
}

/// A host, in the one form in which it is compared and connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// In lower case, ASCII, without a dot at its end.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

impl FromStr for Host {
    type Err = BadDestination;

    /// A name, or an address, an IPv6 one with brackets or without.
    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let address = text.parse().map(Self::Ip);
        address.or_else(|_| host_of(text)).map_err(|problem| BadDestination { text: text.to_owned(), problem })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// How.
    pub scheme: Scheme,
    /// To which host.
    pub host: Host,
    /// To which port.
    pub port: u16,
}

impl Destination {
    /// Host and port as a URL has them: the port only where it is not the scheme's.
    pub fn authority(&self) -> String {
        match Some(self.port) == self.scheme.port() {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Reads `https://HOST[:PORT]`, or what a request has of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(scheme: &str, authority: &str) -> Result<Self, BadDestination> {
        let bad = |problem| BadDestination { text: format!("{scheme}://{authority}"), problem };
        let scheme = Scheme::parse(scheme).ok_or_else(|| bad(Problem::Scheme))?;
        Self::at(scheme, authority).map_err(bad)
    }

    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn tcp(text: &str) -> Result<Self, BadDestination> {
        Self::at(Scheme::Tcp, text).map_err(|problem| BadDestination { text: text.to_owned(), problem })
    }

    fn at(scheme: Scheme, authority: &str) -> Result<Self, Problem> {
        let (host, port) = split(authority)?;
        let port = port.map(port_of).transpose()?.or(scheme.port()).ok_or(Problem::NoPort)?;
        Ok(Self { scheme, host: host_of(host)?, port })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority())
    }
}

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let (scheme, authority) = scheme_and_authority(text)?;
        Self::parse(scheme, authority)
    }
}

fn scheme_and_authority(text: &str) -> Result<(&str, &str), BadDestination> {
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| BadDestination { text: text.to_owned(), problem: Problem::Scheme })?;
    Ok((scheme, rest.strip_suffix('/').unwrap_or(rest)))
}

/// Not a destination, or not a pattern of some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?}: {problem}", without_secrets(text))]
pub struct BadDestination {
    text: String,
    problem: Problem,
}

impl BadDestination {
    /// What is wrong, without the text: for one that may have a password in it.
    pub fn problem(&self) -> impl fmt::Display {
        self.problem
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it begins with neither http:// nor https://")]
    Scheme,
    #[error("a user or password has no place in it")]
    Userinfo,
    #[error("it has more than a host and a port")]
    More,
    #[error("the port is none of 1 to 65535")]
    Port,
    #[error("a port has to be named, as in ldap.example.com:636")]
    NoPort,
    #[error("there is no host")]
    NoHost,
    #[error("the host has characters that no name has; write an international name in its xn-- form")]
    Characters,
    #[error("the host has a part that is empty or longer than 63 bytes, or is longer than 253 bytes")]
    Length,
    #[error(
        "the host is an address in a form that is read in different ways; write it in full, as in 127.0.0.1 or [::1]"
    )]
    Address,
    #[error("a * stands only for the first parts of a name, as in https://*.example.com")]
    Wildcard,
}

/// Host and port, apart.
fn split(authority: &str) -> Result<(&str, Option<&str>), Problem> {
    if authority.contains('@') {
        return Err(Problem::Userinfo);
    }
    if authority.contains(['/', '?', '#', '\\']) {
        return Err(Problem::More);
    }
    let after_host = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').map(|end| end + 2).ok_or(Problem::Address)?,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    match (&authority[..after_host], &authority[after_host..]) {
        (host, "") => Ok((host, None)),
        (host, rest) => Ok((host, Some(rest.strip_prefix(':').ok_or(Problem::Address)?))),
    }
}

fn port_of(text: &str) -> Result<u16, Problem> {
    // A sign would be read by some.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(Problem::Port),
    }
}

fn host_of(text: &str) -> Result<Host, Problem> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().map(|address| Host::Ip(address.into())).map_err(|_| Problem::Address);
    }
    let name = name_of(text)?;
    // What ends in a number is an address to some resolvers, in octal, hexadecimal, or with parts left out (RFC 3986, 7.4).
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match name.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Host::Ip(address.into())),
        Err(_) if numeric => Err(Problem::Address),
        Err(_) => Ok(Host::Name(name)),
    }
}

/// A name as it is compared: in lower case, without the dot that may end it.
fn name_of(text: &str) -> Result<String, Problem> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err(Problem::NoHost);
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')) {
        return Err(Problem::Characters);
    }
    let fits = |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len());
    match text.len() <= NAME_BYTES_MAX && text.split('.').all(fits) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Problem::Length),
    }
}

/// Destinations that are asked for or granted: `https://HOST[:PORT]`, or `HOST:PORT` for TCP, where `*.` at the beginning of the host
/// stands for one or more parts of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    below: bool,
    to: Destination,
}

impl Pattern {
    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn tcp(text: &str) -> Result<Self, BadDestination> {
        Self::at(Scheme::Tcp, text).map_err(|problem| BadDestination { text: text.to_owned(), problem })
    }

    fn at(scheme: Scheme, authority: &str) -> Result<Self, Problem> {
        let (below, authority) = match authority.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, authority),
        };
        if authority.contains('*') {
            return Err(Problem::Wildcard);
        }
        let to = Destination::at(scheme, authority)?;
        match below && matches!(to.host, Host::Ip(_)) {
            true => Err(Problem::Wildcard),
            false => Ok(Self { below, to }),
        }
    }

    /// What is spoken there.
    pub fn scheme(&self) -> Scheme {
        self.to.scheme
    }

    /// On which port.
    pub fn port(&self) -> u16 {
        self.to.port
    }

    /// Whether it is these that are meant.
    pub fn matches(&self, destination: &Destination) -> bool {
        (self.to.scheme, self.to.port) == (destination.scheme, destination.port)
            && match (&self.to.host, &destination.host) {
                (Host::Name(parent), Host::Name(name)) if self.below => is_below(name, parent),
                (own, other) => !self.below && own == other,
            }
    }

    /// Whether all that another one means is meant.
    pub fn covers(&self, other: &Self) -> bool {
        match other.below {
            false => self.matches(&other.to),
            true => {
                let of_parent = |parent: &str, name: &str| name == parent || is_below(name, parent);
                let same = (self.to.scheme, self.to.port) == (other.to.scheme, other.to.port);
                let names = (&self.to.host, &other.to.host);
                self.below && same && matches!(names, (Host::Name(own), Host::Name(name)) if of_parent(own, name))
            }
        }
    }

    /// Whether it is one address, written out.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self.to.host, Host::Ip(_))
    }

    /// The one destination that it stands for, if it is one.
    pub fn exact(&self) -> Option<&Destination> {
        (!self.below).then_some(&self.to)
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

impl FromStr for Pattern {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        let (scheme, authority) = scheme_and_authority(text)?;
        let bad = |problem| BadDestination { text: text.to_owned(), problem };
        let scheme = Scheme::parse(scheme).ok_or_else(|| bad(Problem::Scheme))?;
        Self::at(scheme, authority).map_err(bad)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        match self.to.scheme {
            Scheme::Tcp => write!(f, "{below}{}", self.to.authority()),
            scheme => write!(f, "{}://{below}{}", scheme.name(), self.to.authority()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn to(text: &str) -> Destination {
        text.parse().unwrap()
    }

    pub(crate) fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_destination_has_one_form() {
        for (text, form) in [
            ("https://api.example.com", "https://api.example.com"),
            ("HTTPS://API.Example.COM.:443/", "https://api.example.com"),
            ("http://api.example.com:80", "http://api.example.com"),
            ("http://api.example.com:443", "http://api.example.com:443"),
            ("https://xn--bcher-kva.example:8443", "https://xn--bcher-kva.example:8443"),
            ("https://127.0.0.1", "https://127.0.0.1"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[0:0:0:0:0:0:0:1]", "https://[::1]"),
            ("https://a_b.example", "https://a_b.example"),
            ("https://1.example", "https://1.example"),
            ("https://0x7g", "https://0x7g"),
        ] {
            assert_eq!(to(text).to_string(), form, "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let label = "a".repeat(64);
        let name = format!("{}.example", ["a".repeat(63).as_str(); 4].join("."));
        for (text, problem) in [
            ("ftp://example.com", "neither http"),
            ("example.com", "neither http"),
            ("https://user@example.com", "user or password"),
            ("https://evil.com@example.com:443", "user or password"),
            ("https://example.com/path", "more than"),
            ("https://example.com?x", "more than"),
            ("https://example.com#x", "more than"),
            ("https://example.com\\@evil.com", "user or password"),
            ("https://example.com\\.evil.com", "more than"),
            ("https://example.com:0", "port"),
            ("https://example.com:65536", "port"),
            ("https://example.com:+443", "port"),
            ("https://example.com:", "port"),
            ("https://example.com:80:80", "port"),
            ("https://", "no host"),
            ("https://.", "no host"),
            ("https://:443", "no host"),
            ("https://exa mple.com", "characters"),
            ("https://exämple.com", "xn--"),
            ("https://example\u{3002}com", "xn--"),
            ("https://ex%61mple.com", "characters"),
            ("https://*.example.com", "characters"),
            ("https://a..b", "empty"),
            ("https://a.b..", "empty"),
            (&format!("https://{label}.b"), "63 bytes"),
            (&format!("https://{name}"), "253 bytes"),
            ("https://127.1", "in full"),
            ("https://2130706433", "in full"),
            ("https://0x7f000001", "in full"),
            ("https://0x7f.0.0.0x1", "in full"),
            ("https://0177.0.0.1", "in full"),
            ("https://127.0.0.1.1", "in full"),
            ("https://0x", "in full"),
            ("https://[::1", "in full"),
            ("https://[::1]x", "in full"),
            ("https://[127.0.0.1]", "in full"),
            ("https://[fe80::1%25eth0]", "in full"),
        ] {
            let error = text.parse::<Destination>().expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        let (longest, name) = ("a".repeat(63), ["a".repeat(62).as_str(); 4].join("."));
        assert!(format!("https://{longest}.b").parse::<Destination>().is_ok());
        assert_eq!(name.len(), 251);
        assert!(format!("https://{name}.b").parse::<Destination>().is_ok(), "253 bytes");
        assert!(format!("https://{name}.bc").parse::<Destination>().is_err(), "254 bytes");
    }

    #[test]
    fn patterns_mean_what_they_say_and_nothing_else() {
        for (text, matching, others) in [
            (
                "https://example.com",
                "https://example.com https://EXAMPLE.com. https://example.com:443",
                "http://example.com https://example.com:8443 https://www.example.com https://example.com.evil.org \
                 https://evilexample.com http://example.com:443",
            ),
            (
                "https://*.example.com",
                "https://www.example.com https://a.b.example.com",
                "https://example.com https://evilexample.com https://www.example.com.evil.org http://www.example.com \
                 https://www.example.com:8443 https://example.com.www",
            ),
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                "http://127.0.0.1 http://127.0.0.2:8080 http://[::1]:8080",
            ),
            ("https://[::1]", "https://[::1] https://[0::1]", "https://[::2] https://127.0.0.1"),
        ] {
            for destination in matching.split_whitespace() {
                assert!(pattern(text).matches(&to(destination)), "{text} means {destination}");
            }
            for destination in others.split_whitespace() {
                assert!(!pattern(text).matches(&to(destination)), "{text} doesn't mean {destination}");
            }
        }
        assert_eq!(pattern("https://*.Example.com.:443/").to_string(), "https://*.example.com");
        for text in
            ["https://*", "https://*.", "https://a.*.com", "https://*.*.com", "https://*.127.0.0.1", "https://*a.b"]
        {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert_eq!(pattern("https://*.example.com").exact(), None);
        assert_eq!(pattern("https://example.com").exact(), Some(&to("https://example.com")));
    }

    #[test]
    fn tcp_goes_to_a_host_and_a_port() {
        let tcp = |text: &str| Pattern::tcp(text).unwrap();
        let to = |text: &str| tcp(text).exact().unwrap().clone();
        assert_eq!(tcp("LDAP.corp.:636").to_string(), "ldap.corp:636");
        assert_eq!(to("ldap.corp:443").to_string(), "tcp://ldap.corp:443", "no port is left out");
        assert!(tcp("*.corp:636").matches(&to("a.b.corp:636")));
        for other in ["ldap.corp:389", "corp:636", "ldap.corp.evil:636"] {
            assert!(!tcp("*.corp:636").matches(&to(other)), "{other}");
        }
        assert!(!tcp("ldap.corp:443").matches(&"https://ldap.corp".parse().unwrap()), "HTTP is another matter");
        assert!(!pattern("https://ldap.corp").matches(&to("ldap.corp:443")));
        for (text, problem) in [
            ("ldap.corp", "a port has to be named"),
            ("ldap.corp:0", "none of 1 to 65535"),
            ("tcp://ldap.corp:636", "more than a host and a port"),
            ("me@ldap.corp:636", "user or password"),
            ("*.10.0.0.1:636", "stands only for the first parts"),
            ("fe80::1:636", "none of 1 to 65535"),
        ] {
            let error = Pattern::tcp(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert_eq!(Destination::tcp("ldap.corp:636").unwrap(), to("ldap.corp:636"));
        for (text, form) in
            [("LDAP.corp.", "ldap.corp"), ("10.0.0.1", "10.0.0.1"), ("::1", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), form);
        }
        for text in ["", "a b", "127.1", "ldap.corp:636", "fe80::1%eth0"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
        assert!(
            "tcp://ldap.corp:636".parse::<Pattern>().is_err() && Destination::parse("tcp", "ldap.corp:636").is_err()
        );
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow) in [
            ("https://example.com", "https://example.com"),
            ("https://*.example.com", "https://www.example.com"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://*.example.com", "https://*.eu.example.com"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} covers {narrow}");
            assert_eq!(pattern(narrow).covers(&pattern(wide)), wide == narrow, "{narrow} covers {wide}");
        }
        for (one, other) in [
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://*.evilexample.com"),
            ("https://*.example.com", "http://*.example.com"),
            ("https://*.example.com", "https://*.example.com:8443"),
            ("https://example.com", "https://*.example.com"),
            ("https://127.0.0.1", "https://*.example.com"),
        ] {
            assert!(!pattern(one).covers(&pattern(other)), "{one} covers {other}");
        }
    }
}
