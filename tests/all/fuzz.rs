//! The fuzz bodies, fed by a seeded mutator: from well-formed examples, by flips, cuts, copies and splices.

use fastrand::Rng;
use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode};
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::{connector, fuzz, is_quick};

fn examples(name: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match name {
        "destinations" => texts(&[
            "https://*.example.com\nhttps://a.example.com",
            "http://127.0.0.1:8080\nhttp://127.0.0.1:8080",
            "https://[::1]:8443/\nhttps://[0::1]:8443",
            "HTTPS://API.Example.COM.:443\nhttps://api.example.com",
            "https://xn--bcher-kva.example\nhttps://0x7f.1",
        ]),
        "addresses" => {
            let v6: [std::net::Ipv6Addr; 4] = ["::ffff:127.0.0.1", "64:ff9b::1", "fe80::1", "2606:4700::5efe:a00:1"]
                .map(|text| text.parse().unwrap());
            let v6 = v6.iter().map(|address| [&[1][..], &address.octets()].concat());
            v6.chain([vec![0, 127, 0, 0, 1], vec![0, 169, 254, 169, 254]]).collect()
        }
        _ => {
            let value =
                |name: &str, value| Attribute { name: name.into(), values: vec![value], mode: ValueMode::Whole };
            let attributes = vec![
                value("t", Value::Text("x".into())),
                value("j", Value::Json("{\"a\":[1]}".into())),
                value("d", Value::Decimal("1.5".into())),
            ];
            let object = ConnectorObject { uid: "1".into(), name: "n".into(), attributes };
            let time = Some("2026-03-01T08:00:00Z".to_owned());
            let delta = |change| SyncDelta { object_class: "a".into(), change, source_time: time.clone() };
            let deltas = vec![
                delta(Change::Create(object.clone())),
                delta(Change::CreateOrUpdate { object, previous_uid: Some("0".into()) }),
                delta(Change::Delete { uid: "1".into(), name: None, last_known: None }),
            ];
            vec![postcard::to_stdvec(&(deltas, Some(SyncToken::Integer(7)))).unwrap()]
        }
    }
}

fn mutated(examples: &[Vec<u8>], chance: &mut Rng) -> Vec<u8> {
    let mut bytes = examples[chance.usize(..examples.len())].clone();
    for _ in 0..chance.usize(..6) {
        let at = chance.usize(..bytes.len() + 1);
        match chance.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.u8(..8),
            1 if at < bytes.len() => bytes[at] = chance.u8(..),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, *b".:/@[]*-0xX%\n\\ \xff".get(chance.usize(..16)).unwrap()),
            4 if at < bytes.len() => {
                let end = chance.usize(at..bytes.len() + 1);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &examples[chance.usize(..examples.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[chance.usize(..other.len() + 1)..]);
            }
        }
    }
    bytes
}

#[test]
fn no_bytes_make_a_reader_panic_or_contradict_itself() {
    let rounds = if is_quick() { 20_000 } else { 200_000 };
    for (name, body) in fuzz::QUICK {
        let (examples, mut chance) = (examples(name), Rng::with_seed(11));
        let mut reached = 0;
        for _ in 0..rounds {
            let bytes = mutated(&examples, &mut chance);
            reached += u32::from(!bytes.is_empty());
            body(&bytes);
        }
        assert!(reached > rounds / 2);
    }
}

#[tokio::test]
async fn no_component_harms_whoever_loads_it() {
    let example = vec![std::fs::read(connector("hostile")).unwrap()];
    let (engine, mut chance) = (fuzz::engine(), Rng::with_seed(13));
    for _ in 0..if is_quick() { 20 } else { 150 } {
        fuzz::component(&engine, &mutated(&example, &mut chance)).await;
    }
}
