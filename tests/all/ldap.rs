//! The connector `ldap` in its sandbox, with a real directory, over TLS; and what becomes of it when server or network fail.

use tidewaiter_servers::{OpenLdap, Slapd, Tls};
use tidewaiter_tests::following::{outlive, sync, told};
use tidewaiter_tests::is_quick;
use tidewaiter_tests::ldap::{
    BY_COOKIE, BY_TIME, PEOPLE, address, clear_address, people, place, place_with, server, server_with,
};
use tidewaiter_tests::web::{Authority, Relay};

#[test]
fn a_directory_is_followed_over_tls_and_its_deletions_by_a_cookie() {
    let authority = Authority::new();
    let server = server(&authority, &["127.0.0.1"]);
    server.change(&people(1, 2));
    for (address, tls) in [(address(&server), "required"), (clear_address(&server), "starttls")] {
        let place = place_with(address, &authority, BY_COOKIE, tls);
        let check = place.run("check");
        assert_eq!(check.code, 0, "{check:?}");
        assert_eq!(sync(&place).json()["deltas"], 0, "the first run begins at the latest");
        server.change(&format!("dn: uid=p1,{PEOPLE}\nchangetype: modify\nreplace: sn\nsn: {tls}\n"));
        server.change(&format!("dn: uid=p2,{PEOPLE}\nchangetype: delete\n"));
        let ran = sync(&place).json();
        assert_eq!(ran["deltas"], 2);
        assert_eq!(ran["spent"]["tls-connections"], ran["spent"]["tcp-connections"], "{ran}");
        let mut kinds: Vec<String> =
            place.changes().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        assert_eq!(kinds, ["create-or-update", "delete"]);
        assert_eq!(sync(&place).json()["deltas"], 0);
        server.change(&people(2, 1));
    }
}

#[test]
fn who_the_server_is_and_how_it_is_spoken_to_is_checked() {
    let authority = Authority::new();
    let of_other_name = server(&authority, &["ldap.corp"]);
    let (certificate, key) = authority.sign_until(&["127.0.0.1"], 2026);
    let expired = server_with(Tls { certificate, key });
    let clear = OpenLdap::start(&Slapd::default());
    for (to, tls, part) in [
        (address(&of_other_name), "required", "the certificate is not trusted"),
        (clear_address(&of_other_name), "starttls", "the certificate is not trusted"),
        (address(&expired), "required", "the certificate is not trusted"),
        (clear_address(&expired), "starttls", "the certificate is not trusted"),
        (clear_address(&clear), "starttls", "asking 127.0.0.1 for TLS"),
        (clear_address(&clear), "required", "TLS with 127.0.0.1"),
    ] {
        let place = place_with(to, &authority, BY_TIME, tls);
        let ended = sync(&place);
        assert!(ended.code == 4 && ended.stdout.contains("connection-") && ended.stdout.contains(part), "{ended:?}");
        let shown = place.run("audit --json").stdout;
        assert!(!shown.contains("secret"), "the password was not shown to the connector: {shown}");
    }
    // Granted without TLS, and asked for without it: the host still says no where the grant requires it.
    let trusted = server(&authority, &["127.0.0.1"]);
    let place = place_with(clear_address(&trusted), &authority, BY_TIME, "off");
    let ended = sync(&place);
    assert!(ended.code == 4 && ended.stdout.contains("egress.tls-required"), "{ended:?}");
    place.write("grants/hr.toml", &format!("tcp = [\"{}\"]\nreveal = [\"password\"]\n", clear_address(&trusted)));
    // A wrong password waits for another one, and is not tried again.
    place.write("password", "wrong");
    let ended = sync(&place);
    assert!(ended.code == 4 && ended.stdout.contains("invalid-credential"), "{ended:?}");
    place.write("password", OpenLdap::PASSWORD);
    assert_eq!(sync(&place).code, 0);
    // No word of the password without its grant.
    place.write("grants/hr.toml", &format!("tcp = [\"{}\"]\n", clear_address(&trusted)));
    let ended = sync(&place);
    assert!(ended.code == 4 && ended.stdout.contains("reveal"), "{ended:?}");
}

#[test]
fn a_server_that_is_killed_and_a_network_that_is_cut_lose_and_repeat_nothing() {
    let authority = Authority::new();
    let mut server = server(&authority, &["127.0.0.1"]);
    let count = if is_quick() { 2_000 } else { 10_000 };
    server.change(&people(1, 1));
    let relay = Relay::new(address(&server));
    let places = [BY_TIME, BY_COOKIE].map(|changes| place(relay.address, &authority, changes));
    for place in &places {
        assert_eq!(sync(place).code, 0);
    }
    server.load(&people(2, count));
    for (nth, place) in places.iter().enumerate() {
        // Later and later: by cookie all has to come at once.
        let cuts = outlive(place, &relay, 600_000, &mut server, [OpenLdap::kill, OpenLdap::restart]);
        assert!(cuts >= 1, "{cuts} cuts");
        // Slow is no failure. What slapd got right before it was killed it may give only after the next change.
        let slow = 300;
        relay.pauses(20);
        server.change(&people(100_000 * (nth + 1), slow));
        assert!(sync(place).json()["deltas"].as_u64().unwrap() >= slow as u64);
        let told = told(place);
        assert_eq!(told.len(), count + slow * (nth + 1));
        assert!(told.values().all(|times| *times == 1), "{:?}", told.iter().find(|(_, times)| **times > 1));
        relay.pauses(0);
    }
}

/// The figure that has to be reached, and the size that a component may have.
#[test]
fn many_entries_are_fast() {
    let size = std::fs::metadata(tidewaiter_tests::connector("ldap")).unwrap().len();
    println!("the component has {} KiB", size / 1024);
    assert!(size <= 800 * 1024, "{size} bytes");
    if is_quick() {
        return;
    }
    let authority = Authority::new();
    let mut server = server(&authority, &["127.0.0.1"]);
    server.change(&people(1, 1));
    let count = 100_000;
    let places = [BY_TIME, BY_COOKIE].map(|changes| place(address(&server), &authority, changes));
    for place in &places {
        assert_eq!(sync(place).code, 0);
    }
    server.load(&people(2, count));
    for (place, way) in places.iter().zip(["by time", "by cookie"]) {
        let ran = sync(place).json();
        assert_eq!(ran["deltas"], count);
        let time = |name: &str| ran[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let rate = count as i64 * 1000 / (time("ended") - time("started")).max(1);
        println!("{count} entries {way}: {rate} entries/s");
        // Judged where nothing else runs; beside other tests only a collapse is one.
        assert!(rate >= 10_000, "{way}: {rate} entries/s");
    }
}
