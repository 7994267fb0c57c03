//! A table of people on a real server, over TLS, and a place with a connection that follows it.

use std::net::SocketAddr;

use tidewaiter_servers::{MariaDb, PostgreSql, Tls};

use crate::web::Authority;
use crate::{Place, following};

/// People, each with the time of their last change.
pub const PEOPLE: &str = "CREATE TABLE people (id integer PRIMARY KEY, login text, mail text, at timestamptz DEFAULT clock_timestamp());\
     CREATE INDEX ON people (at, id);";
/// Found by that time.
pub const BY_TIME: &str = "{ by = \"timestamp\", column = \"at\", lag_ms = 0 }";

/// A server of these names, which the authority vouches for, with [`PEOPLE`].
pub fn server(authority: &Authority, names: &[&str]) -> (PostgreSql, SocketAddr) {
    let (certificate, key) = authority.sign(names);
    let server = PostgreSql::start(Some(&Tls { certificate, key }));
    server.run(PEOPLE);
    let address = address(&server);
    (server, address)
}

/// The same, of MariaDB.
pub fn mariadb(authority: &Authority, names: &[&str]) -> (MariaDb, SocketAddr) {
    let (certificate, key) = authority.sign(names);
    let server = MariaDb::start(Some(&Tls { certificate, key }));
    server.run(
        "CREATE TABLE people (id INT PRIMARY KEY, login TEXT, mail TEXT, \
         at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), INDEX (at, id))",
    );
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    (server, address)
}

/// Where a server is.
pub fn address(server: &PostgreSql) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], server.port()))
}

/// A place with a connection `hr` that reaches its server here.
pub fn place(address: SocketAddr, authority: &Authority, changes: &str) -> Place {
    let server = "dialect = \"postgresql\"\ndatabase = \"postgres\"\nuser = \"postgres\"";
    following::place("sql", &settings(server, changes), PostgreSql::PASSWORD, address, authority)
}

/// The same, of a MariaDB.
pub fn place_of_mariadb(address: SocketAddr, authority: &Authority, changes: &str) -> Place {
    let server = "dialect = \"mariadb\"\ndatabase = \"hr\"\nuser = \"tidewaiter\"";
    following::place("sql", &settings(server, changes), MariaDb::PASSWORD, address, authority)
}

fn settings(server: &str, changes: &str) -> String {
    format!(
        "{server}\nclasses.account = {{ table = \"people\", uid = \"id\", name = \"login\", changes = {changes} }}\n"
    )
}
