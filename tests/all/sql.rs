//! The connector `sql` in its sandbox, with a real PostgreSQL and a real MariaDB, over TLS; and what becomes of it when server or
//! network fail.

use tidewaiter_servers::{MariaDb, PostgreSql, Tls};
use tidewaiter_tests::following::{outlive, sync, told};
use tidewaiter_tests::sql::{BY_TIME, PEOPLE, address, mariadb, place, place_of_mariadb, server};
use tidewaiter_tests::web::{Authority, Relay};
use tidewaiter_tests::{Place, built, is_quick};

#[test]
fn a_table_is_followed_over_tls_and_its_deletions_by_a_log() {
    let authority = Authority::new();
    let (server, address) = server(&authority, &["127.0.0.1"]);
    server.run("INSERT INTO people VALUES (1, 'ann', 'ann@x'), (2, 'bob', 'bob@x')");
    server.run(include_str!("../../plugins/sql/postgresql-log.sql"));
    server.run("SELECT tidewaiter.watch('people', 'id')");
    let place = place(address, &authority, "{ by = \"log\" }");
    let check = place.run("check");
    assert_eq!(check.code, 0, "{check:?}");
    assert_eq!(sync(&place).json()["deltas"], 0, "the first run begins at the latest");
    server.run("UPDATE people SET mail = 'ann@y' WHERE id = 1; DELETE FROM people WHERE id = 2");
    let ran = sync(&place).json();
    assert_eq!(ran["deltas"], 2);
    assert_eq!(ran["spent"]["tls-connections"], ran["spent"]["tcp-connections"], "{ran}");
    let entries = place.changes();
    let kinds: Vec<_> =
        entries.iter().map(|entry| (entry["uid"].as_str().unwrap(), entry["kind"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("1", "create-or-update"), ("2", "delete")]);
    let shown = place.run("connections show hr").stdout;
    // The classes were asked for, too.
    assert!(shown.contains("2 TCP connections, TLS over 2"), "{shown}");
}

#[test]
fn who_the_server_is_and_how_it_is_spoken_to_is_checked() {
    let authority = Authority::new();
    let (server_of_other_name, there) = server(&authority, &["db.corp"]);
    let clear = PostgreSql::start(None);
    let (certificate, key) = authority.sign_until(&["127.0.0.1"], 2026);
    let expired = PostgreSql::start(Some(&Tls { certificate, key }));
    for (to, code, part) in [
        (there, "connection-failed", "the certificate is not trusted"),
        (address(&expired), "connection-failed", "the certificate is not trusted"),
        (address(&clear), "connection-failed", "offers no TLS"),
    ] {
        let ended = sync(&place(to, &authority, BY_TIME));
        assert!(ended.code == 4 && ended.stdout.contains(code) && ended.stdout.contains(part), "{ended:?}");
    }
    assert!(!server_of_other_name.log().contains("authentication"), "no password was tried");
    // Granted without TLS, and asked for without it: the host still says no where the grant requires it.
    let place = place(address(&clear), &authority, BY_TIME);
    let text = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    place.write("connections/hr.toml", &text.replace("[settings]\n", "[settings]\ntls = \"off\"\n"));
    clear.run(PEOPLE);
    let ended = sync(&place);
    assert!(ended.code == 4 && ended.stdout.contains("egress.tls-required"), "{ended:?}");
    // A wrong password waits for another one, and is not tried again.
    place.write("grants/hr.toml", &format!("tcp = [\"{}\"]\nreveal = [\"password\"]\n", address(&clear)));
    place.write("password", "wrong");
    let ended = sync(&place);
    assert!(ended.code == 4 && ended.stdout.contains("invalid-credential"), "{ended:?}");
    place.write("password", PostgreSql::PASSWORD);
    assert_eq!(sync(&place).code, 0);
}

#[test]
fn a_server_that_is_killed_and_a_network_that_is_cut_lose_and_repeat_nothing() {
    let authority = Authority::new();
    let (mut server, address) = server(&authority, &["127.0.0.1"]);
    let relay = Relay::new(address);
    let place = place(relay.address, &authority, BY_TIME);
    assert_eq!(sync(&place).code, 0);
    let rows = if is_quick() { 3_000 } else { 20_000 };
    server.run(&format!(
        "INSERT INTO people (id, login, mail) SELECT n, 'p' || n, repeat('x', 50) FROM generate_series(1, {rows}) AS n"
    ));
    // Later and later, while the rest gets shorter: it ends.
    let cuts = outlive(&place, &relay, 100_000, &mut server, [PostgreSql::kill, PostgreSql::restart]);
    assert!(cuts >= 2, "{cuts} cuts");
    let told = told(&place);
    assert_eq!(told.len(), rows);
    assert!(told.values().all(|times| *times == 1), "{:?}", told.iter().find(|(_, times)| **times > 1));
    // Slow is no failure.
    relay.pauses(20);
    server.run("UPDATE people SET mail = 'slow@x', at = clock_timestamp() WHERE id <= 500");
    assert_eq!(sync(&place).json()["deltas"], 500);
}

#[test]
fn a_mariadb_is_followed_over_tls_and_none_that_has_another_name() {
    let authority = Authority::new();
    let (server, there) = mariadb(&authority, &["127.0.0.1"]);
    server.run(include_str!("../../plugins/sql/mariadb-log.sql"));
    server.run(
        "CALL tidewaiter.watch('hr', 'people', 'id'); GRANT SELECT ON tidewaiter.* TO tidewaiter@'127.0.0.1'; \
         GRANT EXECUTE ON FUNCTION tidewaiter.triggers TO tidewaiter@'127.0.0.1'; \
         INSERT INTO people (id, mail) VALUES (1, 'ann@x'), (2, 'bob@x'); \
         ALTER USER tidewaiter@'127.0.0.1' REQUIRE SSL",
    );
    let place = place_of_mariadb(there, &authority, "{ by = \"log\" }");
    let check = place.run("check");
    assert_eq!(check.code, 0, "{check:?}");
    assert_eq!(sync(&place).json()["deltas"], 0, "the first run begins at the latest");
    server.run("UPDATE people SET mail = 'ann@y' WHERE id = 1; DELETE FROM people WHERE id = 2");
    let ran = sync(&place).json();
    assert_eq!(ran["deltas"], 2, "{ran}");
    assert_eq!(ran["spent"]["tls-connections"], ran["spent"]["tcp-connections"], "{ran}");
    let entries = place.changes();
    let kinds: Vec<_> =
        entries.iter().map(|entry| (entry["uid"].as_str().unwrap(), entry["kind"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("1", "create-or-update"), ("2", "delete")]);
    // A password that goes to the server as it is goes over TLS.
    server.run("CREATE USER ed@'127.0.0.1' IDENTIFIED VIA ed25519 USING PASSWORD('curve'); GRANT SELECT ON hr.* TO ed@'127.0.0.1'");
    let text = std::fs::read_to_string(place.path("connections/hr.toml")).unwrap();
    let of_ed = text.replace("\"tidewaiter\"", "\"ed\"").replace("{ by = \"log\" }", BY_TIME);
    place.write(
        "connections/ed.toml",
        &of_ed.replace("\"password\"", "\"curve\"").replace("secrets.curve", "secrets.password"),
    );
    place.write("curve", "curve");
    place.write("grants/ed.toml", &std::fs::read_to_string(place.path("grants/hr.toml")).unwrap());
    let ended = place.run("sync ed account --json");
    assert_eq!(ended.code, 0, "{ended:?}");

    let (of_other_name, elsewhere) = mariadb(&authority, &["db.corp"]);
    let clear = MariaDb::start(None);
    for (to, part) in
        [(elsewhere, "the certificate is not trusted"), (([127, 0, 0, 1], clear.port()).into(), "offers no TLS")]
    {
        let ended = sync(&place_of_mariadb(to, &authority, BY_TIME));
        let is_said = ended.stdout.contains("connection-failed") && ended.stdout.contains(part);
        assert!(ended.code == 4 && is_said, "{ended:?}");
    }
    assert!(!of_other_name.log().contains("Access denied"), "no password was tried");
}

#[test]
fn a_mariadb_that_is_killed_and_a_network_that_is_cut_lose_and_repeat_nothing() {
    let authority = Authority::new();
    let (mut server, address) = mariadb(&authority, &["127.0.0.1"]);
    server.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    let relay = Relay::new(address);
    let place = place_of_mariadb(relay.address, &authority, BY_TIME);
    assert_eq!(sync(&place).code, 0);
    let rows = if is_quick() { 3_000 } else { 20_000 };
    server.run(&format!("INSERT INTO people (id, login, mail) SELECT seq, 'p', REPEAT('x', 50) FROM seq_1_to_{rows}"));
    let cuts = outlive(&place, &relay, 100_000, &mut server, [MariaDb::kill, MariaDb::restart]);
    assert!(cuts >= 1, "{cuts} cuts");
    let told = told(&place);
    assert_eq!(told.len(), rows);
    assert!(told.values().all(|times| *times == 1), "{:?}", told.iter().find(|(_, times)| **times > 1));
}

/// A driver in pure Python, as it comes: what it calls a socket is the sandbox's.
#[test]
fn an_ordinary_driver_works_over_a_granted_socket() {
    if !built("pg-py") {
        return;
    }
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("INSERT INTO people VALUES (1, 'ann', 'ann@x')");
    // Python's own half of SCRAM is in OpenSSL, which is not there.
    let password = PostgreSql::PASSWORD;
    let user = format!("SET password_encryption = 'md5'; CREATE USER driver PASSWORD '{password}'");
    server.run(&format!("{user}; GRANT SELECT ON people TO driver"));
    let place = Place::empty();
    place.install("pg-py");
    place.write("tidewaiter.toml", "");
    place.write("password", password);
    let address = address(&server);
    let connection = format!(
        "connector = \"pg-py\"\nsettings = {{ server = \"{address}\" }}\n[types.account]\nclass = \"account\"\n\
         [secrets.password]\nfile = \"password\"\n"
    );
    place.write("connections/hr.toml", &connection);
    let denied = sync(&place);
    assert!(denied.code == 4 && denied.stdout.contains("password"), "nothing is granted: {denied:?}");
    place.write("grants/hr.toml", "reveal = [\"password\"]\n");
    let denied = sync(&place);
    assert!(denied.code == 4 && denied.stdout.contains("egress.host_not_granted"), "{denied:?}");
    place.write("grants/hr.toml", &format!("tcp = [\"{address}\"]\nreveal = [\"password\"]\n"));
    assert_eq!(sync(&place).json()["deltas"], 0, "the first run begins at the latest");
    server.run("INSERT INTO people VALUES (2, 'bob', 'bob@x'), (3, 'cem', NULL)");
    let ran = sync(&place).json();
    assert_eq!((&ran["deltas"], &ran["spent"]["tls-connections"]), (&2.into(), &0.into()), "{ran}");
    assert_eq!(told(&place).into_keys().collect::<Vec<_>>(), ["2", "3"]);
}

/// The figure that has to be reached, and the size that a component may have.
#[test]
fn many_rows_are_fast() {
    let size = std::fs::metadata(tidewaiter_tests::connector("sql")).unwrap().len();
    println!("the component has {} KiB", size / 1024);
    assert!(size <= 800 * 1024, "{size} bytes");
    if is_quick() {
        return;
    }
    let authority = Authority::new();
    let (postgresql, address) = server(&authority, &["127.0.0.1"]);
    let of_postgresql = rate(&place(address, &authority, BY_TIME), || {
        postgresql.run(&format!("INSERT INTO people (id, login, mail) SELECT n, 'p' || n, 'p' || n || '@example.com' FROM generate_series(1, {ROWS}) AS n"));
        postgresql.run("ANALYZE people");
    });
    let (mariadb, address) = mariadb(&authority, &["127.0.0.1"]);
    let of_mariadb = rate(&place_of_mariadb(address, &authority, BY_TIME), || {
        mariadb.run(&format!("INSERT INTO people (id, login, mail) SELECT seq, CONCAT('p', seq), CONCAT('p', seq, '@example.com') FROM seq_1_to_{ROWS}"));
    });
    println!("{ROWS} rows: {of_postgresql} rows/s of PostgreSQL, {of_mariadb} rows/s of MariaDB");
    // Judged where nothing else runs; beside other tests only a collapse is one.
    assert!(of_postgresql >= 25_000 && of_mariadb >= 25_000, "{of_postgresql} and {of_mariadb} rows/s");
}

const ROWS: u64 = 200_000;

/// How many rows a second are handed over.
fn rate(place: &Place, fill: impl FnOnce()) -> u64 {
    assert_eq!(sync(place).code, 0);
    fill();
    let ran = sync(place).json();
    assert_eq!(ran["deltas"], ROWS);
    let time = |name: &str| ran[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    ROWS * 1000 / u64::try_from(time("ended") - time("started")).unwrap().max(1)
}
