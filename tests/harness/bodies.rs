//! Bodies of fuzz tests, as plain functions: each takes any bytes, and panics if something does that must not. The test binary
//! feeds them by a seeded mutator (`fuzz`), and `cargo xtask fuzz` by a fuzzer that sees which code they reach; for that they know
//! the core alone.

use std::net::IpAddr;
use std::sync::Arc;

use tidewaiter_core::dead_letter::DataFaults;
use tidewaiter_core::grant::address::{AddressKind, Range, vet};
use tidewaiter_core::grant::destination::{Destination, Pattern};
use tidewaiter_core::grant::policy::{EgressGrant, EgressPolicy};
use tidewaiter_core::inspect::Inspector;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::object::SyncDelta;
use tidewaiter_core::schema::{AttributeInfo, ChangeFeed, Classes, ObjectClassInfo, ValueType};
use tidewaiter_core::token::SyncToken;

/// What reads as a destination or a pattern has one form, reads as itself in it, and is granted by what it says only.
pub fn destinations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (one, other) = text.split_once('\n').unwrap_or((&text, "https://example.com"));
    if let Ok(to) = one.parse::<Destination>() {
        assert_eq!(to.to_string().parse::<Destination>().as_ref(), Ok(&to), "{one}");
        let uri: http::Uri = to.to_string().parse().expect("what leaves is a URL");
        assert_eq!(uri.authority().unwrap().as_str(), to.authority());
        assert!(uri.authority().unwrap().host().is_ascii() && !to.authority().contains('@'));
    }
    let (Ok(pattern), Ok(to)) = (one.parse::<Pattern>(), other.parse::<Destination>()) else { return };
    assert_eq!(pattern.to_string().parse::<Pattern>().as_ref(), Ok(&pattern), "{one}");
    assert!(pattern.covers(&pattern));
    let policy = EgressPolicy {
        asked: vec![pattern.clone()],
        granted: vec![EgressGrant::to(pattern.clone())],
        ..EgressPolicy::default()
    };
    assert_eq!(policy.decide("GET", &to).is_ok(), pattern.matches(&to), "{one} {other}");
    if pattern.matches(&to) {
        let (pattern, to) = (pattern.to_string(), to.to_string());
        let end = pattern.split_once("://").map_or("", |(_, host)| host.trim_start_matches('*'));
        assert!(to.ends_with(end), "{pattern} {to}");
    }
}

/// An address that is no public one is reached by no name, and one inside another by nothing.
pub fn addresses(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let address: IpAddr = match (first % 2, rest.first_chunk::<4>(), rest.first_chunk::<16>()) {
        (0, Some(four), _) => IpAddr::from(*four),
        (_, _, Some(sixteen)) => IpAddr::from(*sixteen),
        _ => return,
    };
    let kind = AddressKind::of(address);
    assert_eq!(vet(address, false, &[]).is_ok(), kind == AddressKind::Public, "{address}");
    let everything = ["0.0.0.0/0", "::/0"].map(|range| range.parse::<Range>().unwrap());
    if vet(address, false, &everything).is_ok() {
        assert!(!address.is_loopback() && !address.is_unspecified() && !address.is_multicast(), "{address}");
        assert!(!matches!(address, IpAddr::V6(v6) if v6.to_ipv4().is_some()), "{address}");
    }
}

/// Whatever a guest hands over, the inspector answers. What passed.
pub fn batches(bytes: &[u8]) -> Vec<SyncDelta> {
    let read = postcard::from_bytes::<(Vec<SyncDelta>, Option<SyncToken>)>(bytes);
    let Ok((deltas, checkpoint)) = read else { return Vec::new() };
    let attribute = |name, value_type| AttributeInfo { multi_valued: true, ..AttributeInfo::new(name, value_type) };
    let class = ObjectClassInfo {
        name: "a".into(),
        attributes: vec![
            attribute("t", ValueType::Text),
            attribute("j", ValueType::Json),
            attribute("d", ValueType::Decimal),
        ],
        reports_deletes: true,
        whole_objects: true,
        changes: ChangeFeed::ByToken,
    };
    let mut inspector = Inspector::new(Arc::new(Classes::new(vec![class])), Limits::default(), DataFaults::Fail);
    inspector.open("a");
    if inspector.emit(&deltas, checkpoint.as_ref()).is_err() {
        return Vec::new();
    }
    assert!(deltas.iter().all(|delta| !delta.change.uid().is_empty() && delta.object_class.eq_ignore_ascii_case("a")));
    deltas
}
