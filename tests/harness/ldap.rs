//! People in a real directory, over TLS, and a place with a connection that follows them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tidewaiter_servers::{OpenLdap, Slapd, Tls};

use crate::web::Authority;
use crate::{Place, following};

/// Where they are.
pub const PEOPLE: &str = "ou=people,dc=example,dc=com";
/// Found by the time of their last change, as soon as that can be.
pub const BY_TIME: &str = "{ by = \"timestamp\", lag_ms = 1000 }";
/// Found by the server's cookie.
pub const BY_COOKIE: &str = "{ by = \"syncrepl\" }";
/// The tree, without anybody in it.
const TREE: &str = "dn: dc=example,dc=com\nobjectClass: domain\ndc: example\n\n\
                    dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n";

/// A server of these names, which the authority vouches for, that remembers deletions.
pub fn server(authority: &Authority, names: &[&str]) -> OpenLdap {
    let (certificate, key) = authority.sign(names);
    server_with(Tls { certificate, key })
}

/// A server that speaks TLS with this.
pub fn server_with(tls: Tls) -> OpenLdap {
    let database = "syncprov-sessionlog 1000000\nsyncprov-sessionlog-source cn=accesslog\n".to_owned();
    let server = OpenLdap::start(&Slapd { tls: Some(tls), server_id: 1, database, ..Slapd::default() });
    server.change(TREE);
    server
}

/// Where a server of this machine speaks TLS at once.
pub fn address(server: &OpenLdap) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.tls_port()))
}

/// Where it speaks in clear, until it is asked for TLS.
pub fn clear_address(server: &OpenLdap) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}

/// So many people, as LDIF: the numbers from one on.
pub fn people(from: usize, count: usize) -> String {
    (from..from + count).fold(String::new(), |mut ldif, n| {
        let _ = write!(
            ldif,
            "dn: uid=p{n},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: p{n}\ncn: Person {n}\nsn: Number {n}\n\
             mail: p{n}@example.com\n\n"
        );
        ldif
    })
}

/// A place with a connection `hr` that reaches its server here.
pub fn place(address: SocketAddr, authority: &Authority, changes: &str) -> Place {
    place_with(address, authority, changes, "required")
}

/// The same, with another word for `tls`.
pub fn place_with(address: SocketAddr, authority: &Authority, changes: &str, tls: &str) -> Place {
    let settings = format!(
        "tls = \"{tls}\"\nbind = \"{}\"\n\
         classes.account = {{ base = \"{PEOPLE}\", filter = \"(objectClass=inetOrgPerson)\", name = \"uid\", \
         attributes = [\"uid\", \"cn\", \"sn\", \"mail\"], changes = {changes} }}\n",
        OpenLdap::ADMINISTRATOR
    );
    following::place("ldap", &settings, OpenLdap::PASSWORD, address, authority)
}
