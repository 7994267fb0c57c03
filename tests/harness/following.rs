//! A place with a connection `hr` that follows people on a real server, and what is left to be told when server and network fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::web::{Authority, Relay};
use crate::{Ended, Place};

/// A place with that connection: of a connector, with these settings beside the server's address, and a password that it may see. It reaches
/// the server over TLS, and trusts the authority.
pub fn place(connector: &str, settings: &str, password: &str, to: SocketAddr, authority: &Authority) -> Place {
    let place = Place::empty();
    place.install(connector);
    authority.write(&place.path("ca.pem"));
    place.write("tidewaiter.toml", "trust = [\"ca.pem\"]\n");
    place.write("password", password);
    place.write(
        "grants/hr.toml",
        &format!("tcp = [{{ to = \"{to}\", tls = \"required\" }}]\nreveal = [\"password\"]\n"),
    );
    let connection = format!(
        "connector = \"{connector}\"\n[types.account]\nclass = \"account\"\n[secrets.password]\nfile = \"password\"\n\
         [settings]\nserver = \"{to}\"\n{settings}"
    );
    place.write("connections/hr.toml", &connection);
    place
}

/// Runs it once.
pub fn sync(place: &Place) -> Ended {
    place.run("sync hr account --json")
}

/// How often each uid was told of.
///
/// # Panics
/// If the journal can't be read.
pub fn told(place: &Place) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for entry in place.changes() {
        *told.entry(entry["uid"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    told
}

/// Runs it until it is through, while the network is cut after so many bytes, and after more each time, and the server is killed and comes
/// back in between: the rest gets shorter, so it ends. Answers how often it was cut.
///
/// # Panics
/// If a run fails in another way.
pub fn outlive<S>(place: &Place, relay: &Relay, bytes: u64, server: &mut S, [kill, restart]: [fn(&mut S); 2]) -> u64 {
    let mut cuts = 0;
    relay.cuts_after(bytes);
    loop {
        let ended = sync(place);
        if ended.code == 0 {
            relay.cuts_after(u64::MAX);
            return cuts;
        }
        assert!(ended.code == 4 && ended.stdout.contains("connection-broken"), "{ended:?}");
        cuts += 1;
        relay.cuts_after(bytes * (cuts + 1));
        kill(server);
        let down = sync(place);
        assert!(down.code == 4 && down.stdout.contains("connection-"), "{down:?}");
        restart(server);
    }
}
