//! What an address is, and which addresses a connection may be made to. A name that resolves to anything but a public address leads
//! nowhere, unless the grant says where it may lead.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

/// What an address is for, by IANA's registries of special-purpose addresses (RFC 6890) and what clouds document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    /// Anybody's.
    Public,
    /// This machine.
    Loopback,
    /// No address, which a connection takes for this machine.
    Unspecified,
    /// A network of one's own: `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`.
    Private,
    /// Behind a carrier's translation: `100.64.0.0/10`.
    CarrierNat,
    /// This link only.
    LinkLocal,
    /// A network of one's own, in IPv6: `fc00::/7`, and the older `fec0::/10`.
    UniqueLocal,
    /// Many machines, or all of a network.
    Multicast,
    /// Only in texts: `192.0.2.0/24`, `2001:db8::/32` and their like.
    Documentation,
    /// Set aside, or not given out.
    Reserved,
    /// Where clouds tell their machines' credentials.
    Metadata,
    /// An IPv4 address inside an IPv6 one, which leads wherever the inner one does.
    EmbeddedV4,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Unspecified => "unspecified",
            Self::Private => "private",
            Self::CarrierNat => "carrier-grade NAT",
            Self::LinkLocal => "link-local",
            Self::UniqueLocal => "unique-local",
            Self::Multicast => "multicast",
            Self::Documentation => "documentation",
            Self::Reserved => "reserved",
            Self::Metadata => "cloud metadata",
            Self::EmbeddedV4 => "IPv4 inside IPv6",
        })
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

/// The first that holds an address says what it is; what none holds is public.
const V4: &[(Ipv4Net, AddressKind)] = &[
    // Documented by AWS, Azure, Google, Oracle, DigitalOcean, OpenStack and others.
    (v4(169, 254, 169, 254, 32), AddressKind::Metadata),
    // AWS: credentials of tasks and pods, names, time.
    (v4(169, 254, 170, 0, 24), AddressKind::Metadata),
    (v4(169, 254, 169, 253, 32), AddressKind::Metadata),
    (v4(169, 254, 169, 123, 32), AddressKind::Metadata),
    // Tencent; Alibaba; Oracle's older one; Azure's agent.
    (v4(169, 254, 0, 23, 32), AddressKind::Metadata),
    (v4(100, 100, 100, 200, 32), AddressKind::Metadata),
    (v4(192, 0, 0, 192, 32), AddressKind::Metadata),
    (v4(168, 63, 129, 16, 32), AddressKind::Metadata),
    (v4(0, 0, 0, 0, 8), AddressKind::Unspecified),
    (v4(10, 0, 0, 0, 8), AddressKind::Private),
    (v4(100, 64, 0, 0, 10), AddressKind::CarrierNat),
    (v4(127, 0, 0, 0, 8), AddressKind::Loopback),
    (v4(169, 254, 0, 0, 16), AddressKind::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressKind::Private),
    (v4(192, 0, 0, 0, 24), AddressKind::Reserved),
    (v4(192, 0, 2, 0, 24), AddressKind::Documentation),
    (v4(192, 31, 196, 0, 24), AddressKind::Reserved),
    (v4(192, 52, 193, 0, 24), AddressKind::Reserved),
    (v4(192, 88, 99, 0, 24), AddressKind::Reserved),
    (v4(192, 168, 0, 0, 16), AddressKind::Private),
    (v4(192, 175, 48, 0, 24), AddressKind::Reserved),
    (v4(198, 18, 0, 0, 15), AddressKind::Reserved),
    (v4(198, 51, 100, 0, 24), AddressKind::Documentation),
    (v4(203, 0, 113, 0, 24), AddressKind::Documentation),
    (v4(224, 0, 0, 0, 4), AddressKind::Multicast),
    (v4(240, 0, 0, 0, 4), AddressKind::Reserved),
];

/// As `V4`; what none holds is reserved, because only 2000::/3 has been given out.
const V6: &[(Ipv6Net, AddressKind)] = &[
    // AWS: metadata, credentials of pods, names, time. Google. Scaleway. OpenStack.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), AddressKind::Metadata),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), AddressKind::Metadata),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), AddressKind::Metadata),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), AddressKind::Metadata),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), AddressKind::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), AddressKind::Loopback),
    // Compatible, mapped, translated (RFC 4291, RFC 2765), NAT64 (RFC 6052, RFC 8215), Teredo (RFC 4380), 6to4 (RFC 3056).
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), AddressKind::EmbeddedV4),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), AddressKind::EmbeddedV4),
    (v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), AddressKind::EmbeddedV4),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), AddressKind::EmbeddedV4),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), AddressKind::EmbeddedV4),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), AddressKind::EmbeddedV4),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), AddressKind::EmbeddedV4),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), AddressKind::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), AddressKind::UniqueLocal),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), AddressKind::UniqueLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), AddressKind::Multicast),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), AddressKind::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), AddressKind::Documentation),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), AddressKind::Reserved),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48), AddressKind::Reserved),
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), AddressKind::Public),
];

impl AddressKind {
    /// What this address is.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                let found = V4.iter().find(|(range, _)| range.contains(&address));
                found.map_or(Self::Public, |(_, kind)| *kind)
            }
            // The interface identifier of ISATAP (RFC 5214) holds an IPv4 address under any prefix.
            IpAddr::V6(address) if is_isatap(address) => Self::EmbeddedV4,
            IpAddr::V6(address) => {
                let found = V6.iter().find(|(range, _)| range.contains(&address));
                found.map_or(Self::Reserved, |(_, kind)| *kind)
            }
        }
    }

    /// Whether a range in a grant can lead here. Everything else needs the address itself to be granted, or can't be reached.
    fn opens_by_range(self) -> bool {
        matches!(self, Self::Public | Self::Private | Self::CarrierNat | Self::LinkLocal | Self::UniqueLocal)
    }

    /// Whether nothing leads here, not even a grant of the very address: what is behind it can't be told from the address.
    fn is_no_destination(self) -> bool {
        matches!(self, Self::Unspecified | Self::Multicast | Self::EmbeddedV4)
    }
}

fn is_isatap(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // The universal bit of the identifier may be set.
    segments[4] & 0xfdff == 0 && segments[5] == 0x5efe
}

/// A range of addresses in a grant, as in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(IpNet);

/// A range that can't be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It is none.
    #[error("{0:?} is not a range of addresses, as in \"10.0.0.0/8\"")]
    Syntax(String),
    /// It has bits beyond its length: a typo, more likely than not.
    #[error("{given} has bits beyond its length: {meant} is the range")]
    HostBits {
        /// What was written.
        given: String,
        /// The range that holds it.
        meant: String,
    },
    /// No address in it can be reached by a range.
    #[error("{given} is {kind}, which no range opens: grant the address itself")]
    Closed {
        /// What was written.
        given: String,
        /// What its addresses are.
        kind: AddressKind,
    },
}

impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let range: IpNet = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().map_err(|_| BadRange::Syntax(text.to_owned()))?,
        };
        if range.addr() != range.network() {
            return Err(BadRange::HostBits { given: text.to_owned(), meant: range.trunc().to_string() });
        }
        let (first, last) = (AddressKind::of(range.network()), AddressKind::of(range.broadcast()));
        match first == last && !first.opens_by_range() {
            true => Err(BadRange::Closed { given: text.to_owned(), kind: first }),
            false => Ok(Self(range)),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an address may be connected to. `literal`: the grant names this very address; `ranges`: where its name may lead, and
/// nowhere else if there are any.
///
/// # Errors
/// What the address is, where it is no place to go.
pub fn vet(address: IpAddr, literal: bool, ranges: &[Range]) -> Result<(), AddressKind> {
    let kind = AddressKind::of(address);
    let allowed = match (literal, ranges) {
        (true, _) => !kind.is_no_destination(),
        (false, []) => kind == AddressKind::Public,
        (false, ranges) => kind.opens_by_range() && ranges.iter().any(|Range(range)| range.contains(&address)),
    };
    if allowed { Ok(()) } else { Err(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> AddressKind {
        AddressKind::of(text.parse().unwrap())
    }

    #[test]
    fn a_refusal_says_what_the_address_is() {
        assert_eq!(kind("169.254.169.254").to_string(), "cloud metadata");
        assert_eq!(kind("::ffff:10.0.0.1").to_string(), "IPv4 inside IPv6");
    }

    /// The first and the last address of each range, and the ones beside it.
    #[test]
    fn every_range_ends_where_the_registry_says() {
        use AddressKind::*;
        let cases = [
            (Unspecified, "0.0.0.0 0.0.0.1 0.255.255.255 ::"),
            (
                Public,
                "1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0",
            ),
            (
                Public,
                "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.167.255.255",
            ),
            (
                Public,
                "192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255",
            ),
            (
                Public,
                "192.31.195.255 192.31.197.0 192.52.192.255 192.52.194.0 192.88.98.255 192.88.100.0 192.175.47.255",
            ),
            (Public, "192.175.49.0 168.63.129.15 168.63.129.17"),
            (Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"),
            (CarrierNat, "100.64.0.0 100.127.255.255 100.100.100.199 100.100.100.201"),
            (Loopback, "127.0.0.0 127.0.0.1 127.255.255.255 ::1"),
            (LinkLocal, "169.254.0.0 169.254.255.255 169.254.169.255 169.254.169.252 169.254.0.22 169.254.0.24"),
            (LinkLocal, "169.254.169.255 169.254.171.0 169.254.169.122 169.254.169.124 fe80:: fe80::1 febf:ffff::1"),
            (Metadata, "169.254.169.254 169.254.170.0 169.254.170.2 169.254.170.255 169.254.169.253 169.254.169.123"),
            (Metadata, "169.254.0.23 100.100.100.200 192.0.0.192 168.63.129.16"),
            (Metadata, "fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 fe80::a9fe:a9fe"),
            (
                Reserved,
                "192.0.0.0 192.0.0.191 192.0.0.193 192.0.0.255 192.31.196.0 192.31.196.255 192.52.193.0 192.52.193.255",
            ),
            (Reserved, "192.88.99.0 192.88.99.255 192.175.48.0 192.175.48.255 198.18.0.0 198.19.255.255 240.0.0.0"),
            (
                Reserved,
                "255.255.255.255 1fff:ffff::1 4000::1 5f00::1 100::1 64:ff9b:2::1 2001:1:: 2001:2::1 2001:1ff:ffff::1",
            ),
            (Reserved, "2620:4f:8000:: 2620:4f:8000:ffff::1 fbff::1 fe00::1 fe7f:ffff::1"),
            (Documentation, "192.0.2.0 192.0.2.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255"),
            (Documentation, "2001:db8:: 2001:db8:ffff:ffff::1 3fff:: 3fff:fff:ffff::1"),
            (Multicast, "224.0.0.0 239.255.255.255 ff00:: ff02::1 ffff::1"),
            (
                EmbeddedV4,
                "::2 ::7f00:1 ::ffff:ffff ::ffff:0:0 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:7f00:1 ::ffff:0:808:808",
            ),
            (EmbeddedV4, "64:ff9b:: 64:ff9b::7f00:1 64:ff9b:1:: 64:ff9b:1:ffff::1 2001:: 2001:0:ffff::1"),
            (EmbeddedV4, "2002:: 2002:7f00:1:: 2002:ffff:ffff::1 2606:4700::5efe:7f00:1 2606:4700::200:5efe:7f00:1"),
            (EmbeddedV4, "fe80::5efe:7f00:1 fe80::200:5efe:a9fe:a9fe"),
            (
                UniqueLocal,
                "fc00:: fdff:ffff::1 fd00:ec1:ffff::1 fd00:ec3:: fd20:ce::253 fd00:42::41 fec0::1 feff:ffff::1",
            ),
            (
                Public,
                "2000:: 2001:200:: 2001:db7:ffff::1 2001:db9:: 2003::1 2606:4700::1 3ffe:ffff::1 3fff:1000:: 2620:4f:7fff::1",
            ),
            (Public, "2620:4f:8001:: 2606:4700::5eff:7f00:1 2606:4700::100:5efe:7f00:1 2606:4700:0:0:400:5efe:7f00:1"),
        ];
        for (expected, addresses) in cases {
            for address in addresses.split(' ') {
                assert_eq!(kind(address), expected, "{address}");
            }
        }
    }

    #[test]
    fn a_name_leads_to_public_addresses_unless_ranges_say_where() {
        let vetted = |address: &str, ranges: &[&str]| {
            let ranges: Vec<Range> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            vet(address.parse().unwrap(), false, &ranges)
        };
        assert_eq!(vetted("8.8.8.8", &[]), Ok(()));
        assert_eq!(vetted("2606:4700::1", &[]), Ok(()));
        for (address, kind) in [
            ("10.1.2.3", AddressKind::Private),
            ("100.64.0.1", AddressKind::CarrierNat),
            ("fd12::1", AddressKind::UniqueLocal),
            ("169.254.1.1", AddressKind::LinkLocal),
        ] {
            assert_eq!(vetted(address, &[]), Err(kind), "{address}");
            assert_eq!(vetted(address, &[address]), Ok(()), "{address}");
            assert_eq!(vetted(address, &["192.168.0.0/16", "fd00::/16"]), Err(kind), "{address}");
        }
        assert_eq!(vetted("8.8.8.8", &["10.0.0.0/8"]), Err(AddressKind::Public), "ranges are all that there is");
        assert_eq!(vetted("8.8.8.8", &["10.0.0.0/8", "8.8.0.0/16"]), Ok(()));
        for closed in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "::ffff:10.0.0.1", "192.0.2.1"] {
            for everything in [&["0.0.0.0/0"][..], &["::/0"], &["0.0.0.0/0", "::/0"]] {
                assert!(vetted(closed, everything).is_err(), "{closed} in {everything:?}");
            }
        }
        assert_eq!(vetted("10.0.0.1", &["0.0.0.0/0"]), Ok(()));
    }

    #[test]
    fn a_granted_address_is_reached_even_here_but_not_in_disguise() {
        for address in ["127.0.0.1", "::1", "169.254.169.254", "10.0.0.1", "198.18.0.1", "8.8.8.8", "fd00:ec2::254"] {
            assert_eq!(vet(address.parse().unwrap(), true, &[]), Ok(()), "{address}");
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
        {
            assert!(vet(address.parse().unwrap(), true, &[]).is_err(), "{address}");
        }
    }

    #[test]
    fn ranges_say_what_they_mean() {
        assert_eq!("10.0.0.0/8".parse::<Range>().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!("10.1.2.3".parse::<Range>().unwrap().to_string(), "10.1.2.3/32");
        let problem = |text: &str| text.parse::<Range>().unwrap_err().to_string();
        assert_eq!(problem("10.0.0.1/8"), "10.0.0.1/8 has bits beyond its length: 10.0.0.0/8 is the range");
        assert_eq!(problem("corp"), "\"corp\" is not a range of addresses, as in \"10.0.0.0/8\"");
        assert_eq!(problem("10.0.0.0/33"), "\"10.0.0.0/33\" is not a range of addresses, as in \"10.0.0.0/8\"");
        for closed in ["127.0.0.0/8", "::1", "169.254.169.254/32", "::ffff:0:0/96", "240.0.0.0/4", "224.0.0.0/4"] {
            assert!(problem(closed).contains("grant the address itself"), "{closed}");
        }
    }
}
