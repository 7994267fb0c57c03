//! A table of people on a real server, over TLS, and a place with a connection that follows it.

use std::net::SocketAddr;

use tidewaiter_servers::{MariaDb, PostgreSql, Tls};

use crate::Place;
use crate::web::Authority;

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

/// A place with a connection `hr` that reaches its server here, and trusts the authority.
pub fn place(address: SocketAddr, authority: &Authority, changes: &str) -> Place {
    let server = "dialect = \"postgresql\"\ndatabase = \"postgres\"\nuser = \"postgres\"";
    place_of(server, PostgreSql::PASSWORD, (address, authority, changes))
}

/// The same, of a MariaDB.
pub fn place_of_mariadb(address: SocketAddr, authority: &Authority, changes: &str) -> Place {
    let server = "dialect = \"mariadb\"\ndatabase = \"hr\"\nuser = \"tidewaiter\"";
    place_of(server, MariaDb::PASSWORD, (address, authority, changes))
}

fn place_of(server: &str, password: &str, (address, authority, changes): (SocketAddr, &Authority, &str)) -> Place {
    let place = Place::empty();
    place.install("sql");
    authority.write(&place.path("ca.pem"));
    place.write("tidewaiter.toml", "trust = [\"ca.pem\"]\n");
    place.write("password", password);
    let grants = format!("tcp = [{{ to = \"{address}\", tls = \"required\" }}]\nreveal = [\"password\"]\n");
    place.write("grants/hr.toml", &grants);
    let connection = format!(
        "connector = \"sql\"\n[types.account]\nclass = \"account\"\n[secrets.password]\nfile = \"password\"\n[settings]\n\
         {server}\nserver = \"{address}\"\n\
         classes.account = {{ table = \"people\", uid = \"id\", name = \"login\", changes = {changes} }}\n"
    );
    place.write("connections/hr.toml", &connection);
    place
}
