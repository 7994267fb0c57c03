//! The connector against a real PostgreSQL: what is lost, repeated, late, or told wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sql::Sql;
use support::*;
use tidewaiter_connector::testing::Connection;
use tidewaiter_connector::{Change, ErrorKind, Filter, SyncToken, Value, ValueType};
use tidewaiter_servers::PostgreSql;

const PEOPLE: &str = "CREATE TABLE people (id integer PRIMARY KEY, login text, mail text, at timestamptz DEFAULT now());\
                      CREATE INDEX ON people (at, id);";

fn settings(server: &PostgreSql, classes: &Json) -> Json {
    json!({
        "dialect": "postgresql", "server": format!("127.0.0.1:{}", server.port()), "database": "postgres",
        "user": "postgres", "tls": "off", "classes": classes,
    })
}

fn connection(server: &PostgreSql, classes: &Json) -> Connection<Sql> {
    Connection::new(settings(server, classes)).secret("password", PostgreSql::PASSWORD)
}

/// People, found by `changes`.
fn people(server: &PostgreSql, changes: Json) -> Connection<Sql> {
    connection(server, &json!({ "account": { "table": "people", "uid": "id", "name": "login", "changes": changes } }))
}

fn watched(server: &PostgreSql) {
    server.run(include_str!("../postgresql-log.sql"));
    server.run("SELECT tidewaiter.watch('people', 'id')");
}

#[test]
fn every_checkpoint_resumes_exactly_where_many_rows_have_one_time() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("INSERT INTO people SELECT n, 'p' || n, n || '@x', '2026-03-01 08:00:00.000001Z'::timestamptz + (n / 7) * interval '1 microsecond' \
                FROM generate_series(1, 60) AS n");
    let connection = people(&server, by_time(0)).batches_of(4);
    let run = connection.replays_exactly("account", None);
    assert_eq!(run.deltas().len(), 60);
    assert_eq!(told(&run)[..8], ["1 1@x", "2 2@x", "3 3@x", "4 4@x", "5 5@x", "6 6@x", "7 7@x", "8 8@x"]);
    assert_eq!(run.deltas()[0].source_time.as_deref(), Some("2026-03-01T08:00:00.000001Z"));
    // From the middle of those that share a time.
    let middle = run.emits[2].checkpoint.clone();
    connection.replays_exactly("account", middle);
    // What is written with the time of the token, too late by its clock but with a larger uid, is not passed over.
    server.run("INSERT INTO people SELECT 1000, 'late', 'late@x', max(at) FROM people");
    assert_eq!(told(&connection.sync("account", run.token())), ["1000 late@x"]);
}

#[test]
fn a_time_that_is_committed_late_is_waited_for() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    let connection = people(&server, by_time(0));
    let first = connection.latest_sync_token("account").unwrap();
    let late = Writer::begins(server.session(), "INSERT INTO people VALUES (1, 'late', 'late@x')");
    server.run("INSERT INTO people VALUES (2, 'soon', 'soon@x')");
    let run = connection.sync("account", first.clone());
    assert_eq!(told(&run), Vec::<String>::new(), "what is later waits, too");
    // A token that is taken meanwhile is before both.
    let meanwhile = connection.latest_sync_token("account").unwrap();
    late.ends("COMMIT;\n");
    assert_eq!(told(&connection.sync("account", run.token())), ["1 late@x", "2 soon@x"]);
    assert_eq!(told(&connection.sync("account", meanwhile)), ["1 late@x", "2 soon@x"]);
    // One that may not see other transactions has the lag alone.
    server.run("CREATE USER reader PASSWORD 'reader'; GRANT SELECT ON people TO reader");
    let mut of_reader =
        settings(&server, &json!({ "account": { "table": "people", "uid": "id", "changes": by_time(1500) } }));
    of_reader["user"] = "reader".into();
    let reader = Connection::<Sql>::new(of_reader).secret("password", "reader");
    let late = Writer::begins(server.session(), "INSERT INTO people VALUES (3, 'late', 'late@x')");
    server.run("INSERT INTO people VALUES (4, 'soon', 'soon@x')");
    let before = told(&reader.sync("account", first.clone()));
    assert!(!before.contains(&"4 soon@x".to_owned()), "{before:?}");
    late.ends("COMMIT;\n");
    thread::sleep(Duration::from_millis(1600));
    assert_eq!(told(&reader.sync("account", first))[2..], ["3 late@x", "4 soon@x"]);
}

#[test]
fn a_number_that_is_committed_late_is_waited_for() {
    let server = PostgreSql::start(None);
    server.run(
        "CREATE SEQUENCE changes; CREATE TABLE people (id integer PRIMARY KEY, login text, mail text, \
                change bigint DEFAULT nextval('changes'))",
    );
    let connection = people(&server, json!({ "by": "number", "column": "change", "lag_ms": 1 })).batches_of(2);
    assert_eq!(connection.latest_sync_token("account").unwrap(), None, "there is no row yet");
    server.run("INSERT INTO people SELECT n, 'p', 'p@x' FROM generate_series(10, 20) AS n");
    let run = connection.replays_exactly("account", None);
    assert_eq!(run.deltas().len(), 11);
    let late = Writer::begins(server.session(), "INSERT INTO people VALUES (1, 'late', 'late@x')");
    server.run("INSERT INTO people VALUES (2, 'soon', 'soon@x')");
    // It waits for the transaction, and reads what was numbered before it began to wait.
    let commits = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        late.ends("COMMIT;\n");
    });
    let next = connection.sync("account", run.token());
    commits.join().unwrap();
    assert_eq!(told(&next), ["1 late@x", "2 soon@x"]);
    assert_eq!(told(&connection.sync("account", next.token())), Vec::<String>::new());
}

#[test]
fn a_log_tells_of_everything_once_as_it_is_now() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("INSERT INTO people SELECT n, 'old', 'old@x' FROM generate_series(1, 5) AS n");
    watched(&server);
    let connection = people(&server, json!({ "by": "log" })).batches_of(2);
    let first = connection.latest_sync_token("account").unwrap();
    assert_eq!(told(&connection.sync("account", first.clone())), Vec::<String>::new());
    server.run("UPDATE people SET mail = 'new@x' WHERE id = 1; UPDATE people SET mail = 'newer@x' WHERE id = 1");
    server.run("DELETE FROM people WHERE id = 2; INSERT INTO people VALUES (6, 'six', 'six@x')");
    server.run("INSERT INTO people VALUES (7, 'seven', 'seven@x'); DELETE FROM people WHERE id = 7");
    server.run("UPDATE people SET id = 30 WHERE id = 3");
    server.run("INSERT INTO people VALUES (2, 'again', 'again@x')");
    let run = connection.replays_exactly("account", first);
    assert_eq!(told(&run), ["1 newer@x", "6 six@x", "-7", "-3", "30 old@x", "2 again@x"]);

    // One that began earlier ends later, around another that is wholly within.
    let early = Writer::begins(server.session(), "UPDATE people SET mail = 'early@x' WHERE id = 4");
    server.run("UPDATE people SET mail = 'within@x' WHERE id = 5");
    let waiting = connection.sync("account", run.token());
    assert_eq!(told(&waiting), Vec::<String>::new());
    let meanwhile = connection.latest_sync_token("account").unwrap();
    early.ends("UPDATE people SET mail = 'early and late@x' WHERE id = 5; COMMIT;\n");
    let after = connection.replays_exactly("account", waiting.token());
    let mut all = told(&after);
    all.sort();
    assert_eq!(all, ["4 early@x", "5 early and late@x"]);
    assert_eq!(told(&connection.sync("account", meanwhile)), told(&after));

    server.run("TRUNCATE people");
    let mut gone = told(&connection.sync("account", after.token()));
    gone.sort();
    assert_eq!(gone, ["-1", "-2", "-30", "-4", "-5", "-6"]);
    // Without a token everything is told of.
    server.run("INSERT INTO people SELECT n, 'p', 'p@x' FROM generate_series(1, 3) AS n");
    let whole = connection.sync("account", None);
    assert_eq!(told(&whole).len(), 3);
    assert_eq!(told(&connection.sync("account", whole.token())), Vec::<String>::new());
}

/// Writers that commit early, late, in any order, and not at all; a reader beside them. At the end it has every row, and once.
#[test]
fn beside_concurrent_writers_nothing_is_lost_or_repeated() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("ALTER TABLE people ADD change bigserial");
    watched(&server);
    let writer = |number: u32| {
        let mut session = server.session();
        let mut input = session.stdin.take().unwrap();
        for n in 0..40 {
            let id = number * 1000 + n * 10;
            let nap = f64::from((id * 7919) % 23) / 1000.0;
            let end = if n % 9 == 8 { "ROLLBACK" } else { "COMMIT" };
            let statements = format!(
                "BEGIN; INSERT INTO people (id, login, mail) VALUES ({id}, 'w', '{n}@x'); SELECT pg_sleep({nap}); \
                 INSERT INTO people (id, login, mail, at) VALUES ({id} + 1, 'w', '{n}@x', clock_timestamp()); \
                 SELECT pg_sleep({nap}); {end};\n"
            );
            input.write_all(statements.as_bytes()).unwrap();
        }
        (session, input)
    };
    let strategies = [
        ("time", by_time(0)),
        ("number", json!({ "by": "number", "column": "change", "lag_ms": 5 })),
        ("log", json!({ "by": "log" })),
    ];
    let mut readers = Readers::of(strategies.map(|(name, changes)| (name, people(&server, changes))));
    let early = readers.read_beside((1..=6).map(writer).collect());
    readers.read();
    let rows: Vec<String> = server.run("SELECT id FROM people ORDER BY id").lines().map(str::to_owned).collect();
    assert_eq!(rows.len(), 6 * 2 * 36);
    readers.judge(&rows);
    assert!(early.into_iter().min().unwrap() > 0, "it was read while others wrote");
}

#[test]
fn a_token_of_something_else_is_refused() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    watched(&server);
    server.run("INSERT INTO people VALUES (1, 'p', 'p@x')");
    let (by_log, by_time) = (people(&server, json!({ "by": "log" })), people(&server, by_time(0)));
    let token = by_log.latest_sync_token("account").unwrap().unwrap();
    let refused = |connection: &Connection<Sql>, token: SyncToken, part: &str| {
        let error = connection.sync("account", Some(token)).outcome.unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidSyncToken && error.message().contains(part), "{error:?}");
    };
    refused(
        &by_time,
        token.clone(),
        "is of people with the uid id by log; the settings say people with the uid id by timestamp at",
    );
    refused(&by_time, SyncToken::Integer(7), "is not a text");
    refused(&by_time, "{}".into(), "is none of this connector");
    let SyncToken::Text(text) = &token else { panic!("{token:?}") };
    refused(&by_log, text.replace("sql1", "sql9").into(), "has the format \"sql9\"");
    let mut other: Json = serde_json::from_str(text).unwrap();
    other["position"]["log"]["transaction"] = 999_999_999.into();
    refused(&by_log, other.to_string().into(), "an older state of the database was put back");
    server.run("UPDATE people SET mail = 'q@x'; SELECT tidewaiter.trim('0 seconds')");
    refused(&by_log, token.clone(), "it was trimmed meanwhile");
    assert_eq!(told(&by_log.sync("account", by_log.latest_sync_token("account").unwrap())), Vec::<String>::new());
    server.run("SELECT tidewaiter.watch('people', 'id')");
    refused(&by_log, token, "of another log");
    let of_time = |position: Json| {
        let token =
            json!({ "format": "sql1", "table": "people", "uid": "id", "by": "timestamp at", "position": position });
        SyncToken::Text(token.to_string())
    };
    refused(&by_time, of_time(json!({ "from": "yesterday" })), "has a position that is none");
    refused(&by_time, of_time(json!({ "from": "infinity" })), "has a position that is none");
    refused(&by_time, of_time(json!({ "from": "2099-01-01 00:00:00+00" })), "a time that is still to come");
    refused(&by_time, of_time(json!({ "after": ["2026-01-01 00:00:00+00", "x"] })), "has a uid that is none");
}

/// A log that can't tell of anything is no log in which nothing happened.
#[test]
fn a_log_that_does_not_note_is_an_error() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run(include_str!("../postgresql-log.sql"));
    let connection = people(&server, json!({ "by": "log" }));
    let is_wrong = |part: &str| {
        for error in [connection.check().unwrap_err(), connection.latest_sync_token("account").unwrap_err()] {
            assert!(error.kind() == ErrorKind::Configuration && error.message().contains(part), "{part}: {error:?}");
        }
    };
    is_wrong("is not watched, or its triggers are gone");
    server.run("SELECT tidewaiter.watch('people', 'id')");
    let token = connection.latest_sync_token("account").unwrap();
    // By its new name it is the same table; another one of the old name is another.
    server.run("ALTER TABLE people RENAME TO persons; CREATE TABLE people (LIKE persons)");
    is_wrong("is not watched");
    server
        .run("DROP TABLE people; ALTER TABLE persons RENAME TO people; INSERT INTO people VALUES (1, 'ann', 'ann@x')");
    assert_eq!(told(&connection.sync("account", token.clone())), ["1 ann@x"]);
    server.run("ALTER TABLE people DISABLE TRIGGER tidewaiter");
    is_wrong("its triggers are gone");
    for (table, part) in [
        ("a (id integer)", "may be null"),
        ("b (id char(3) NOT NULL)", "more than one text form"),
        ("c (uid integer NOT NULL)", "has no column id"),
    ] {
        server.run(&format!("CREATE TABLE {table}"));
        let name = &table[..1];
        let refused = server.refuses(&format!("SELECT tidewaiter.watch('{name}', 'id')"));
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_log_is_of_one_table_and_stays_useful_when_it_is_trimmed() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("CREATE TABLE other (id integer PRIMARY KEY)");
    watched(&server);
    server.run("SELECT tidewaiter.watch('other', 'id')");
    let connection = people(&server, json!({ "by": "log" })).batches_of(2);
    let quiet = connection.latest_sync_token("account").unwrap();
    server.run("INSERT INTO other SELECT * FROM generate_series(1, 5)");
    let run = connection.sync("account", quiet.clone());
    assert!(run.deltas().is_empty() && run.token() != quiet, "it goes along");
    server.run("INSERT INTO people VALUES (1, 'ann', 'ann@x'); SELECT tidewaiter.trim('0 seconds')");
    let error = connection.sync("account", run.token()).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSyncToken);
    // Who writes needs no right but to write, and gets none.
    server.run("CREATE USER app PASSWORD 'app'; GRANT INSERT, SELECT ON people TO app");
    let token = connection.latest_sync_token("account").unwrap();
    server.run("SET ROLE app; INSERT INTO people VALUES (2, 'bob', 'bob@x')");
    assert_eq!(told(&connection.sync("account", token.clone())), ["2 bob@x"]);
    assert!(server.refuses("SET ROLE app; DELETE FROM tidewaiter.log").contains("permission denied"));
    assert_eq!(
        server.run("SELECT count(*) FROM pg_proc WHERE pronamespace = 'tidewaiter'::regnamespace AND prosecdef"),
        "0"
    );
    // Beginning without a token, cut anywhere, with changes meanwhile.
    server.run("INSERT INTO people SELECT n, 'p', 'p@x' FROM generate_series(3, 30) AS n");
    let whole = connection.replays_exactly("account", None);
    assert_eq!(whole.deltas().len(), 30);
    let half = whole.emits[5].checkpoint.clone();
    server.run("UPDATE people SET mail = 'new@x' WHERE id = 1; DELETE FROM people WHERE id = 30");
    let rest = connection.sync("account", half);
    assert!(!told(&rest).contains(&"30 p@x".to_owned()));
    assert_eq!(told(&connection.sync("account", rest.token())), ["1 new@x", "-30"]);
    // What cannot be seen to be over holds changes back.
    server.run("TRUNCATE people");
    let error = server.refuses("BEGIN ISOLATION LEVEL REPEATABLE READ; TRUNCATE people");
    assert!(error.contains("READ COMMITTED"), "{error}");
}

#[test]
fn a_prepared_transaction_holds_changes_back() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    let connection = people(&server, by_time(0));
    let first = connection.latest_sync_token("account").unwrap();
    server.run("BEGIN; INSERT INTO people VALUES (1, 'late', 'late@x'); PREPARE TRANSACTION 'two'");
    server.run("INSERT INTO people VALUES (2, 'soon', 'soon@x')");
    let run = connection.sync("account", first);
    assert!(run.deltas().is_empty() && run.log.iter().any(|(_, line)| line.contains("prepared")), "{:?}", run.log);
    assert_eq!(connection.latest_sync_token("account").unwrap_err().kind(), ErrorKind::Retryable);
    server.run("COMMIT PREPARED 'two'");
    assert_eq!(told(&connection.sync("account", run.token())), ["1 late@x", "2 soon@x"]);
}

/// The documented index is used from the first row to the last, whatever there is of them: also where the server thinks that
/// sorting them all would be cheaper, which would tell nothing before its end.
#[test]
fn rows_come_by_the_index() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    watched(&server);
    server.run(
        "INSERT INTO people SELECT n, 'p', 'p@x', now() - n * interval '1 second' FROM generate_series(1, 30000) AS n \
                ORDER BY random(); ANALYZE",
    );
    server.run("LOAD 'auto_explain'; ALTER ROLE postgres SET session_preload_libraries = 'auto_explain'; ALTER ROLE postgres SET auto_explain.log_min_duration = 0; \
                ALTER ROLE postgres SET random_page_cost = 100; ALTER ROLE postgres SET effective_cache_size = '8kB'");
    let by_time = people(&server, by_time(0));
    let whole = by_time.sync("account", None);
    assert_eq!(whole.deltas().len(), 30_000);
    by_time.sync("account", whole.emits[50].checkpoint.clone());
    let by_log = people(&server, json!({ "by": "log" }));
    let token = by_log.latest_sync_token("account").unwrap();
    server.run("UPDATE people SET mail = 'q@x' WHERE id < 10");
    assert_eq!(told(&by_log.sync("account", token)).len(), 9);
    let log = server.log();
    let plans: Vec<&str> =
        log.split("duration:").filter(|plan| plan.contains("ORDER BY") && plan.contains("t.\"id\"")).collect();
    assert_eq!(plans.len(), 3, "{log}");
    for plan in plans {
        assert!(plan.contains("Index Scan") && !plan.contains("Sort") && !plan.contains("Seq Scan on log"), "{plan}");
    }
}

#[test]
fn every_type_is_told_without_loss() {
    let server = PostgreSql::start(None);
    server.run(
        "CREATE TYPE mood AS ENUM ('ok', 'bad');
         CREATE TABLE kinds (id uuid PRIMARY KEY, \"Name\" text, small smallint, big bigint, money numeric, ratio double precision,
             active boolean, photo bytea, data jsonb, born date, seen timestamp, changed timestamptz, mood mood,
             groups text[], numbers integer[], gone_at timestamptz, pin text, valid timestamptz);
         INSERT INTO kinds VALUES ('6f1c2e5e-0000-4000-8000-00000000000a', 'Ann', 7, -9223372036854775808,
             12345678901234567890.1000, 0.1, true, '\\x00ff', '{\"a\": [1]}', '2000-02-29', '2026-07-01 12:00:00',
             '2026-03-01 08:00:00.25+01', 'bad', '{a,\"b,c\",NULL}', '{1,2}', NULL, '0000', 'infinity'),
             ('6f1c2e5e-0000-4000-8000-00000000000b', 'Bob', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
             '2026-03-01 08:00:01Z', NULL, NULL, NULL, '2026-03-02 00:00:00Z', NULL, NULL)",
    );
    let class = json!({
        "table": "public.kinds", "uid": "id", "name": "name", "deleted": "gone_at",
        "changes": { "by": "timestamp", "column": "changed", "lag_ms": 0 },
        "types": { "pin": "secret", "valid": "text" }, "sensitive": ["money"],
    });
    let mut settings = settings(&server, &json!({ "person": class }));
    settings["zone"] = "Europe/Berlin".into();
    let connection = Connection::<Sql>::new(settings).secret("password", PostgreSql::PASSWORD);
    let declared = &connection.object_classes().unwrap()[0];
    let kinds: BTreeMap<_, _> = declared.attributes.iter().map(|info| (info.name.as_str(), info.value_type)).collect();
    assert!(declared.reports_deletes);
    assert_eq!(kinds["money"], ValueType::Decimal);
    assert_eq!(kinds["seen"], ValueType::Timestamp);
    assert_eq!(kinds["born"], ValueType::Text);
    assert!(!["id", "Name", "gone_at"].iter().any(|name| kinds.contains_key(name)), "they are none: {kinds:?}");
    let run = connection.sync("person", None);
    let deltas = run.deltas();
    let Change::CreateOrUpdate(ann) = &deltas[0].change else { panic!("{deltas:?}") };
    assert_eq!((ann.object.uid.as_str(), ann.object.name.as_str()), ("6f1c2e5e-0000-4000-8000-00000000000a", "Ann"));
    let text = |text: &str| Value::Text(text.to_owned());
    for (name, values) in [
        ("small", vec![Value::Integer(7)]),
        ("big", vec![Value::Integer(i64::MIN)]),
        ("money", vec![Value::Decimal("12345678901234567890.1000".into())]),
        ("ratio", vec![Value::Real(0.1)]),
        ("active", vec![Value::Boolean(true)]),
        ("photo", vec![Value::Binary(vec![0, 255])]),
        ("data", vec![Value::Json("{\"a\": [1]}".into())]),
        ("born", vec![text("2000-02-29")]),
        ("seen", vec![Value::Timestamp("2026-07-01T10:00:00Z".into())]),
        ("changed", vec![Value::Timestamp("2026-03-01T07:00:00.25Z".into())]),
        ("mood", vec![text("bad")]),
        ("groups", vec![text("a"), text("b,c")]),
        ("numbers", vec![Value::Integer(1), Value::Integer(2)]),
        ("pin", vec![Value::Secret(b"0000".to_vec())]),
        ("valid", vec![text("infinity")]),
    ] {
        assert_eq!(ann.object.get(name), Some(&values[..]), "{name}");
    }
    let Change::Delete(bob) = &deltas[1].change else { panic!("{deltas:?}") };
    assert_eq!(bob.name.as_deref(), Some("Bob"), "marked");
    assert_eq!(bob.last_known.as_ref().unwrap().get("small"), Some(&[][..]));
}

#[test]
fn objects_are_read_in_pages_and_by_uid() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("ALTER TABLE people ADD gone boolean; INSERT INTO people SELECT n, 'p' || n, n || '@x', now(), n = 7 FROM generate_series(1, 25) AS n");
    server.run(
        "CREATE TABLE keys (id uuid PRIMARY KEY); INSERT INTO keys VALUES ('6f1c2e5e-0000-4000-8000-00000000000a')",
    );
    let classes = json!({
        "account": { "table": "people", "uid": "id", "name": "login", "deleted": "gone" },
        "key": { "query": "SELECT id FROM keys;", "uid": "id" },
    });
    let connection = connection(&server, &classes).options(|options| options.page_size = 4);
    let all = connection.search("account", Filter::All).unwrap();
    let uids: Vec<u32> = all.iter().map(|object| object.uid.parse().unwrap()).collect();
    assert_eq!(uids, (1..=25).filter(|uid| *uid != 7).collect::<Vec<_>>());
    let found = |class: &str, uid: &str| connection.search(class, Filter::ByUid(uid.into())).unwrap().len();
    for (class, uid, count) in [
        ("account", "3", 1),
        ("account", "7", 0),
        ("account", "99", 0),
        ("account", "x' OR 1=1 --", 0),
        ("key", "6f1c2e5e-0000-4000-8000-00000000000a", 1),
        ("key", "6F1C2E5E-0000-4000-8000-00000000000A", 0),
        ("account", "+3", 0),
        ("account", "99999999999999999999", 0),
        ("key", "nobody", 0),
    ] {
        assert_eq!(found(class, uid), count, "{class} {uid}");
    }
    let error = connection.sync("account", None).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn what_is_wrong_is_named() {
    let server = PostgreSql::start(None);
    server.run(PEOPLE);
    server.run("CREATE VIEW twice AS SELECT id, id AS \"ID\", at FROM people; CREATE USER nobody PASSWORD 'nobody'");
    let failed = |connection: Connection<Sql>, kind: ErrorKind, part: &str| {
        let error = connection.check().unwrap_err();
        assert!(error.kind() == kind && error.message().contains(part), "{part}: {error:?}");
    };
    let of = |class: Json| connection(&server, &json!({ "account": class }));
    let wrong = ErrorKind::Configuration;
    failed(of(json!({ "table": "persons", "uid": "id" })), wrong, "relation \"persons\" does not exist (42P01)");
    failed(
        of(json!({ "table": "people", "uid": "uid" })),
        wrong,
        "there is no column \"uid\"; there are: id, login, mail, at",
    );
    failed(of(json!({ "query": "SELECT 1 AS", "uid": "id" })), wrong, "42601");
    failed(of(json!({ "table": "twice", "uid": "id" })), wrong, "it has two columns \"ID\"");
    failed(of(json!({ "uid": "id" })), wrong, "it needs `table` or `query`");
    failed(of(json!({ "table": "people", "uid": "id", "types": { "x": "text" } })), wrong, "there is no column \"x\"");
    let by =
        |by: &str, column: &str| json!({ "table": "people", "uid": "id", "changes": { "by": by, "column": column } });
    failed(
        of(by("timestamp", "mail")),
        wrong,
        "the column \"mail\" is of type text; it has to be timestamp with time zone",
    );
    failed(of(by("number", "at")), wrong, "is of type timestamp with time zone; it has to be a type of whole numbers");
    failed(
        of(json!({ "table": "people", "uid": "id", "changes": { "by": "log" } })),
        wrong,
        "which postgresql-log.sql makes",
    );
    let classes = json!({ "account": { "table": "people", "uid": "id" } });
    let bad = Connection::new(settings(&server, &classes)).secret("password", "wrong");
    failed(bad, ErrorKind::InvalidCredential, "as \"postgres\": the server says: password authentication failed");
    let mut other = settings(&server, &classes);
    other["user"] = "nobody".into();
    failed(Connection::new(other).secret("password", "nobody"), ErrorKind::PermissionDenied, "(42501)");
    let mut closed = settings(&server, &classes);
    closed["server"] = "127.0.0.1:1".into();
    failed(Connection::new(closed), ErrorKind::ConnectionFailed, "127.0.0.1:1: ");
    connection(&server, &classes).check().unwrap();
}
