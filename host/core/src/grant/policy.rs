//! What a connection may do over HTTP and TCP: the lists of what was asked for, granted, and is below the ceiling, and what follows
//! from them.

use std::fmt;
use std::net::IpAddr;

use super::address::{AddressKind, Range, vet};
use super::destination::{Destination, Host, Pattern, Scheme};

/// An entry of a list of grants, or of the ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressGrant {
    /// Where requests or connections may go.
    pub to: Pattern,
    /// With which methods of HTTP; none: any.
    pub methods: Option<Vec<String>>,
    /// Where its names may lead, and nowhere else if there are any; private networks have to be named here.
    pub ranges: Vec<Range>,
    /// Goes through this proxy, which resolves the name itself: no address can be looked at then.
    pub proxy: Option<Destination>,
    /// A run that connects there has to speak TLS, or fails. Of TCP.
    pub tls: bool,
}

impl fmt::Display for EgressGrant {
    /// With its conditions, as in `https://api.example.com (GET, HEAD; in 10.0.0.0/8)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
        let conditions = [
            self.methods.as_ref().map(|methods| methods.join(", ")),
            (!ranges.is_empty()).then(|| format!("in {}", ranges.join(", "))),
            self.proxy.as_ref().map(|proxy| format!("through {proxy}")),
            self.tls.then(|| "over TLS".to_owned()),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        match conditions.is_empty() {
            true => self.to.fmt(f),
            false => write!(f, "{} ({})", self.to, conditions.join("; ")),
        }
    }
}

impl EgressGrant {
    /// With any method, to public addresses.
    pub fn to(to: Pattern) -> Self {
        Self { to, methods: None, ranges: Vec::new(), proxy: None, tls: false }
    }

    fn matches(&self, method: &str, to: &Destination) -> bool {
        self.to.matches(to) && self.methods.as_ref().is_none_or(|methods| methods.iter().any(|known| known == method))
    }
}

/// What a connection may do over HTTP and TCP: what was asked for, and granted, and is below the ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// What the connector asked for.
    pub asked: Vec<Pattern>,
    /// What an update asks for beyond that, and nobody has approved.
    pub awaiting: Vec<Pattern>,
    /// What was granted.
    pub granted: Vec<EgressGrant>,
    /// The most that any connection gets; none: whatever was granted.
    pub ceiling: Option<Vec<EgressGrant>>,
}

/// Why a request may not leave. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The connector didn't ask for it.
    #[error("{method} {to} was not asked for in the connector's description")]
    NotAsked {
        /// How it was to be asked.
        method: String,
        /// Where it was to go.
        to: Destination,
    },
    /// An update asks for it, and nobody has approved that yet.
    #[error("{method} {to} is asked for by an update of the connector, and awaits approval")]
    AwaitsApproval {
        /// As above.
        method: String,
        /// As above.
        to: Destination,
    },
    /// Nobody granted it.
    #[error("{method} {to} is not granted")]
    NotGranted {
        /// As above.
        method: String,
        /// As above.
        to: Destination,
    },
    /// The host allows it to nobody.
    #[error("{method} {to} is granted, but beyond the ceiling")]
    BeyondCeiling {
        /// As above.
        method: String,
        /// As above.
        to: Destination,
    },
}

impl Denied {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAsked { .. } => "egress.not_asked",
            Self::AwaitsApproval { .. } => "egress.awaits_approval",
            Self::NotGranted { .. } => "egress.host_not_granted",
            Self::BeyondCeiling { .. } => "egress.beyond_ceiling",
        }
    }
}

/// A request that may leave, and by which entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a> {
    /// What grants it.
    pub grant: &'a EgressGrant,
    ceiling: Option<&'a EgressGrant>,
    /// Which entries these are.
    pub place: Place,
}

/// The entries of a policy that let a request leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    granted: usize,
    ceiling: Option<usize>,
}

impl Allowed<'_> {
    /// Whether an address that the name resolved to may be connected to.
    ///
    /// # Errors
    /// What the address is, where it is no place to go.
    pub fn vet(&self, address: IpAddr) -> Result<(), AddressKind> {
        let by = |entry: &EgressGrant| vet(address, entry.to.is_literal(), &entry.ranges);
        by(self.grant)?;
        self.ceiling.map_or(Ok(()), by)
    }

    /// Whether TLS has to be spoken there.
    pub fn needs_tls(&self) -> bool {
        self.grant.tls || self.ceiling.is_some_and(|entry| entry.tls)
    }
}

impl EgressPolicy {
    /// Whether a request may leave. Of the grants, and of the ceiling's entries, the first one that matches decides.
    ///
    /// # Errors
    /// Why not.
    pub fn decide(&self, method: &str, to: &Destination) -> Result<Allowed<'_>, Denied> {
        let (method_of, to_of) = (|| method.to_owned(), || to.clone());
        let among = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(to));
        if !among(&self.asked) {
            let (method, to) = (method_of(), to_of());
            return Err(match among(&self.awaiting) {
                true => Denied::AwaitsApproval { method, to },
                false => Denied::NotAsked { method, to },
            });
        }
        let first = |entries: &[EgressGrant]| entries.iter().position(|entry| entry.matches(method, to));
        let granted = first(&self.granted).ok_or_else(|| Denied::NotGranted { method: method_of(), to: to_of() })?;
        let beyond = || Denied::BeyondCeiling { method: method_of(), to: to_of() };
        let ceiling = self.ceiling.as_deref().map(|entries| first(entries).ok_or_else(beyond)).transpose()?;
        Ok(self.at(Place { granted, ceiling }))
    }

    /// Whether a TCP connection may be opened.
    ///
    /// # Errors
    /// Why not.
    pub fn decide_tcp(&self, host: &Host, port: u16) -> Result<Allowed<'_>, Denied> {
        self.decide("connect to", &Destination { scheme: Scheme::Tcp, host: host.clone(), port })
    }

    /// The ports that the connector asks for of a host over TCP, approved or not.
    pub fn asked_ports(&self, host: &Host) -> Vec<u16> {
        let asked = self.asked.iter().chain(&self.awaiting).filter(|pattern| pattern.scheme() == Scheme::Tcp);
        let to = |port| Destination { scheme: Scheme::Tcp, host: host.clone(), port };
        let mut ports: Vec<u16> =
            asked.filter(|pattern| pattern.matches(&to(pattern.port()))).map(Pattern::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The entries at a place of this policy.
    pub fn at(&self, place: Place) -> Allowed<'_> {
        let ceiling = self.ceiling.as_deref().zip(place.ceiling).map(|(entries, at)| &entries[at]);
        Allowed { grant: &self.granted[place.granted], ceiling, place }
    }

    /// Whether all that one asked-for pattern means is granted and below the ceiling, whatever the methods: to be shown before
    /// anything is sent. The entries that have a part in it, written out.
    pub fn foresee(&self, asked: &Pattern) -> Foreseen {
        let covered = |entries: &[EgressGrant]| entries.iter().any(|entry| entry.to.covers(asked));
        let parts = |entries: &[EgressGrant]| -> Vec<String> {
            let parts = entries.iter().filter(|entry| entry.to.covers(asked) || asked.covers(&entry.to));
            parts.map(ToString::to_string).collect()
        };
        let by = parts(&self.granted);
        if by.is_empty() {
            return Foreseen::NotGranted;
        }
        match &self.ceiling {
            Some(ceiling) if parts(ceiling).is_empty() => Foreseen::BeyondCeiling { by },
            Some(ceiling) if !covered(ceiling) => Foreseen::InPart { by },
            _ if covered(&self.granted) => Foreseen::Granted { by },
            _ => Foreseen::InPart { by },
        }
    }
}

/// What can be said of an asked-for pattern before a request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// By these entries.
    Granted {
        /// The grants that have a part in it.
        by: Vec<String>,
    },
    /// Only some of it, by these entries.
    InPart {
        /// As above.
        by: Vec<String>,
    },
    /// By none.
    NotGranted,
    /// By these entries, and none of it is below the ceiling.
    BeyondCeiling {
        /// As above.
        by: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::super::destination::tests::{pattern, to};
    use super::*;

    fn grant(text: &str) -> EgressGrant {
        EgressGrant::to(pattern(text))
    }

    #[test]
    fn a_request_leaves_if_it_was_asked_for_and_granted_and_is_below_the_ceiling() {
        let here = to("https://api.example.com");
        let list = |texts: &[&str]| texts.iter().map(|text| grant(text)).collect::<Vec<_>>();
        let policy = |asked: &[&str], granted: &[&str], ceiling: Option<&[&str]>| EgressPolicy {
            asked: asked.iter().map(|text| pattern(text)).collect(),
            granted: list(granted),
            ceiling: ceiling.map(list),
            ..EgressPolicy::default()
        };
        let code = |policy: EgressPolicy| policy.decide("GET", &here).map(|_| ()).map_err(|denied| denied.code());
        let (exact, wild, other) = ("https://api.example.com", "https://*.example.com", "https://example.org");
        assert_eq!(code(policy(&[], &[exact], None)), Err("egress.not_asked"));
        assert_eq!(code(policy(&[other], &[exact], None)), Err("egress.not_asked"));
        assert_eq!(code(policy(&[exact], &[], None)), Err("egress.host_not_granted"));
        assert_eq!(code(policy(&[exact], &[other], None)), Err("egress.host_not_granted"));
        assert_eq!(code(policy(&[exact], &[wild], None)), Ok(()));
        assert_eq!(code(policy(&[other, wild], &[other, exact], None)), Ok(()));
        assert_eq!(code(policy(&[exact], &[exact], Some(&[]))), Err("egress.beyond_ceiling"));
        assert_eq!(code(policy(&[exact], &[exact], Some(&[other]))), Err("egress.beyond_ceiling"));
        assert_eq!(code(policy(&[exact], &[exact], Some(&[other, wild]))), Ok(()));
        let denied = policy(&[exact], &[], None).decide("GET", &here).unwrap_err();
        assert_eq!(denied.to_string(), "GET https://api.example.com is not granted");
        let awaiting = |text: &str| EgressPolicy { awaiting: vec![pattern(text)], ..policy(&[other], &[exact], None) };
        assert_eq!(code(awaiting(wild)), Err("egress.awaits_approval"));
        assert_eq!(code(awaiting("https://example.com")), Err("egress.not_asked"));
        assert_eq!(code(EgressPolicy { asked: vec![pattern(exact)], ..awaiting(wild) }), Ok(()), "another asks for it");
    }

    #[test]
    fn methods_that_are_not_listed_are_not_granted() {
        let reads = EgressGrant { methods: Some(vec!["GET".into(), "HEAD".into()]), ..grant("https://*.example.com") };
        let here = to("https://api.example.com");
        let asked = vec![pattern("https://api.example.com")];
        let policy = EgressPolicy { asked: asked.clone(), granted: vec![reads.clone()], ..EgressPolicy::default() };
        assert!(policy.decide("HEAD", &here).is_ok());
        for method in ["POST", "get", ""] {
            assert_eq!(policy.decide(method, &here).unwrap_err().code(), "egress.host_not_granted", "{method}");
        }
        let all = vec![grant("https://api.example.com")];
        let below = EgressPolicy { asked, granted: all, ceiling: Some(vec![reads]), ..EgressPolicy::default() };
        assert!(below.decide("GET", &here).is_ok());
        assert_eq!(below.decide("POST", &here).unwrap_err().code(), "egress.beyond_ceiling");
    }

    #[test]
    fn the_first_entry_that_matches_decides_where_a_name_may_lead() {
        let ranged = |text: &str, range: &str| EgressGrant { ranges: vec![range.parse().unwrap()], ..grant(text) };
        let here = to("https://api.example.com");
        let private: IpAddr = "10.0.0.1".parse().unwrap();
        let asked = vec![pattern("https://*.example.com"), pattern("https://10.0.0.1")];
        let granted = vec![ranged("https://api.example.com", "10.0.0.0/8"), grant("https://*.example.com")];
        let mut policy = EgressPolicy { asked, granted, ..EgressPolicy::default() };
        assert_eq!(policy.decide("GET", &here).unwrap().vet(private), Ok(()));
        let other = to("https://other.example.com");
        assert_eq!(policy.decide("GET", &other).unwrap().vet(private), Err(AddressKind::Private));
        policy.ceiling = Some(vec![grant("https://*.example.com")]);
        assert_eq!(
            policy.decide("GET", &here).unwrap().vet(private),
            Err(AddressKind::Private),
            "the ceiling has none"
        );
        policy.ceiling = Some(vec![ranged("https://*.example.com", "10.0.0.0/24")]);
        assert_eq!(policy.decide("GET", &here).unwrap().vet(private), Ok(()));
        policy.granted.reverse();
        assert_eq!(policy.decide("GET", &here).unwrap().vet(private), Err(AddressKind::Private), "the other is first");
        policy.granted = vec![grant("https://10.0.0.1")];
        policy.ceiling = None;
        let literal = to("https://10.0.0.1");
        assert_eq!(policy.decide("GET", &literal).unwrap().vet(private), Ok(()), "written out");
    }

    #[test]
    fn tcp_is_granted_by_host_and_port() {
        let tcp = |text: &str| Pattern::tcp(text).unwrap();
        let host: Host = Host::Name("ldap.corp".into());
        let policy = EgressPolicy {
            asked: vec![tcp("ldap.corp:636"), tcp("*.corp:389"), tcp("other.corp:1"), pattern("https://ldap.corp")],
            awaiting: vec![tcp("ldap.corp:22")],
            granted: vec![EgressGrant { tls: true, ..EgressGrant::to(tcp("ldap.corp:636")) }],
            ceiling: None,
        };
        assert_eq!(policy.asked_ports(&host), [22, 389, 636]);
        assert_eq!(policy.asked_ports(&Host::Name("corp".into())), [0; 0]);
        let code = |port| policy.decide_tcp(&host, port).map(|allowed| allowed.needs_tls()).map_err(|no| no.code());
        assert_eq!(code(636), Ok(true));
        assert_eq!(code(389), Err("egress.host_not_granted"));
        assert_eq!(code(22), Err("egress.awaits_approval"));
        assert_eq!(code(443), Err("egress.not_asked"), "HTTP is another matter");
        let denied = policy.decide_tcp(&host, 389).unwrap_err().to_string();
        assert_eq!(denied, "connect to tcp://ldap.corp:389 is not granted");
        let ceiling = |tls| EgressGrant { tls, ..EgressGrant::to(tcp("*.corp:636")) };
        let granted = vec![EgressGrant::to(tcp("ldap.corp:636"))];
        for tls in [false, true] {
            let policy = EgressPolicy { granted: granted.clone(), ceiling: Some(vec![ceiling(tls)]), ..policy.clone() };
            assert_eq!(policy.decide_tcp(&host, 636).map(|allowed| allowed.needs_tls()), Ok(tls), "either can need it");
        }
    }

    #[test]
    fn what_will_be_granted_is_said_before() {
        let foresee = |asked: &str, granted: &[&str], ceiling: Option<&[&str]>| {
            let list = |texts: &[&str]| texts.iter().map(|text| grant(text)).collect::<Vec<_>>();
            let policy = EgressPolicy { granted: list(granted), ceiling: ceiling.map(list), ..EgressPolicy::default() };
            policy.foresee(&pattern(asked))
        };
        let (a, b, wild) = ("https://a.example.com", "https://b.example.com", "https://*.example.com");
        let by = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let conditions = EgressGrant {
            methods: Some(vec!["GET".into(), "HEAD".into()]),
            ranges: vec!["10.0.0.0/8".parse().unwrap()],
            proxy: Some(to("http://proxy.corp:3128")),
            tls: true,
            ..grant(a)
        };
        assert_eq!(
            conditions.to_string(),
            "https://a.example.com (GET, HEAD; in 10.0.0.0/8; through http://proxy.corp:3128; over TLS)"
        );
        assert_eq!(foresee(a, &[], None), Foreseen::NotGranted);
        assert_eq!(foresee(a, &[b], None), Foreseen::NotGranted);
        assert_eq!(foresee(a, &[b, wild], None), Foreseen::Granted { by: by(&[wild]) });
        assert_eq!(foresee(wild, &[a, b], None), Foreseen::InPart { by: by(&[a, b]) });
        assert_eq!(foresee(wild, &[wild], None), Foreseen::Granted { by: by(&[wild]) });
        assert_eq!(foresee(a, &[a], Some(&[b])), Foreseen::BeyondCeiling { by: by(&[a]) });
        assert_eq!(foresee(a, &[a], Some(&[wild])), Foreseen::Granted { by: by(&[a]) });
        assert_eq!(foresee(wild, &[wild], Some(&[a])), Foreseen::InPart { by: by(&[wild]) });
        assert_eq!(foresee(wild, &[a], Some(&[wild])), Foreseen::InPart { by: by(&[a]) });
    }
}
