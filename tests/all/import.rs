//! OpenIDM's files become connections: what is printed and written, that nothing is overwritten, and that what comes out runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use tidewaiter_tests::Place;

fn provisioner(name: &str, connector: &str, properties: Value) -> Value {
    let attribute = |native: &str| json!({"type": "string", "nativeName": native, "nativeType": "string"});
    json!({
        "name": name,
        "connectorRef": {"bundleName": "org.example.bundle", "bundleVersion": "1.5.0.0", "connectorName": connector},
        "poolConfigOption": {"maxObjects": 10, "maxIdle": 10, "maxWait": 150_000, "minEvictableIdleTimeMillis": 120_000, "minIdle": 1},
        "operationTimeout": {"CREATE": -1, "SYNC": 120_000, "SEARCH": -1},
        "configurationProperties": properties,
        "syncFailureHandler": {"maxRetries": 3, "postRetryAction": "logged-ignore"},
        "resultsHandlerConfig": {"enableFilteredResultsHandler": true},
        "objectTypes": {"account": {
            "$schema": "http://json-schema.org/draft-03/schema", "id": "__ACCOUNT__", "type": "object", "nativeType": "__ACCOUNT__",
            "properties": {"id": attribute("__NAME__"), "mail": attribute("mail")}
        }},
        "operationOptions": {}
    })
}

fn csv(place: &Place) -> Value {
    let file = place.path("people/people.csv");
    provisioner(
        "HR",
        "org.forgerock.openicf.csvfile.CSVFileConnector",
        json!({"csvFile": file, "headerUid": "id", "newlineString": "\n"}),
    )
}

fn ldap() -> Value {
    let properties = json!({
        "host": "ldap.corp.example", "port": 636, "ssl": true, "principal": "cn=sync,dc=corp", "credentials": "hunter2",
        "baseContexts": ["dc=corp"], "accountObjectClasses": ["top", "inetOrgPerson"], "failover": [], "useBlocks": false
    });
    provisioner("ldap", "org.identityconnectors.ldap.LdapConnector", properties)
}

fn table() -> Value {
    let properties = json!({
        "host": "localhost", "port": "3306", "user": "sync", "password": {"$crypto": {"value": {"data": "hunter2"}}}, "database": "hr",
        "table": "people", "keyColumn": "id", "changeLogColumn": "changed", "jdbcDriver": "org.mariadb.jdbc.Driver",
        "jdbcUrlTemplate": "jdbc:mariadb://%h:%p/%d"
    });
    provisioner("db", "org.identityconnectors.databasetable.DatabaseTableConnector", properties)
}

fn schedule(source: &str, cron: &str) -> Value {
    json!({
        "enabled": true, "persisted": true, "type": "cron", "schedule": cron, "timeZone": "UTC", "misfirePolicy": "fireAndProceed",
        "concurrentExecution": false, "invokeService": "provisioner", "invokeContext": {"action": "liveSync", "source": source}
    })
}

/// A place without configuration, and OpenIDM's files in `conf`.
fn place() -> Place {
    let place = Place::empty();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n2,b@x,2026-03-01T09:00:00Z,\n");
    let files = [
        ("provisioner.openicf-HR", csv(&place)),
        ("provisioner.openicf-ldap", ldap()),
        ("provisioner.openicf_db", table()),
        ("schedule-hr", schedule("system/HR/account", "0 0/5 * * * ?")),
        ("schedule-ldap", schedule("system/ldap/account", "0/15 * * * * ?")),
        (
            "schedule-recon",
            json!({"type": "cron", "schedule": "0 0 2 * * ?", "invokeService": "sync", "invokeContext": {"action": "reconcile", "mapping": "systemHRAccount_managedUser"}}),
        ),
    ];
    for (name, json) in files {
        place.write(&format!("conf/{name}.json"), &json.to_string());
    }
    place
}

const ALL: &str = "import openidm conf/provisioner.openicf-HR.json conf/provisioner.openicf-ldap.json conf/provisioner.openicf_db.json \
                   conf/schedule-hr.json conf/schedule-ldap.json conf/schedule-recon.json";

#[test]
fn what_openidm_has_becomes_connections_that_the_host_reads() {
    let place = place();
    let printed = place.run(ALL);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(!place.path("connections").exists(), "nothing is written unless it is said where");
    for part in [
        "==> connections/HR.toml <==",
        "==> grants/ldap.toml <==",
        "conf/schedule-recon.json: invokeService: it is no live sync; a timer of the machine's that runs `tidewaiter reconcile HR account`",
        "conf/provisioner.openicf-ldap.json: poolConfigOption: ",
        "max-retries = 3",
    ] {
        assert!(printed.stdout.contains(part), "no {part} in {}", printed.stdout);
    }
    let written = place.run(&format!("{ALL} --to . --json")).json();
    assert_eq!(written["written"].as_array().unwrap().len(), 6);
    for name in ["HR", "ldap", "db"] {
        for folder in ["connections", "grants"] {
            let path = place.path(&format!("{folder}/{name}.toml"));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            assert_eq!(fs::read_to_string(&path).unwrap(), written[folder][name].as_str().unwrap());
        }
    }
    let note =
        |path: &str| written["notes"].as_array().unwrap().iter().find(|note| note["path"] == path).unwrap().clone();
    assert_eq!(note("resultsHandlerConfig")["fate"], "no-counterpart");
    assert_eq!(note("configurationProperties.credentials")["fate"], "to-do");
    assert!(!written.to_string().contains("hunter2") && !printed.stdout.contains("hunter2"));

    place.write("tidewaiter.toml", written["host-file"].as_str().unwrap());
    let list = place.run("connections list --json").json();
    let mut types: Vec<&str> = list.as_array().unwrap().iter().map(|of| of["connection"].as_str().unwrap()).collect();
    types.sort_unstable();
    assert_eq!(types, ["HR", "db", "ldap"], "{list}");
}

#[test]
fn a_connection_that_was_imported_runs() {
    let place = place();
    let ended = place.run("import openidm conf/provisioner.openicf-HR.json conf/schedule-hr.json --to .");
    assert_eq!(ended.code, 0, "{ended:?}");
    place.write("tidewaiter.toml", "");
    let check = place.run("check");
    assert_eq!(check.code, 0, "{check:?}");
    assert_eq!(place.run("sync HR account").code, 0);
    place.people("1,a@x,2026-03-01T08:00:00Z,\n3,c@x,2026-03-03T08:00:00Z,\n");
    assert_eq!(place.run("sync HR account").code, 0);
    let mut said: Vec<_> = place.changes().iter().map(|entry| (entry["uid"].clone(), entry["kind"].clone())).collect();
    said[..2].sort_by_key(|(uid, _)| uid.to_string());
    let uids: Vec<&str> = said.iter().map(|(uid, _)| uid.as_str().unwrap()).collect();
    assert_eq!(
        (&uids[..2], said.len()),
        (&["1", "2"][..], 4),
        "two rows, then one that came and one that is gone: {said:?}"
    );
    assert!(said[2..].contains(&(json!("2"), json!("delete"))), "{said:?}");
    let attributes: Vec<Value> = place.changes().iter().take(2).map(|entry| entry["attributes"].clone()).collect();
    assert!(attributes.contains(&json!({"mail": ["a@x"]})), "only what OpenIDM read: {attributes:?}");
    let shown = place.run("connections show HR").stdout;
    assert!(shown.contains("quartz 0 0/5 * * * ? UTC"), "{shown}");
}

#[test]
fn nothing_is_overwritten_and_what_is_wrong_writes_nothing() {
    let place = place();
    place.write("grants/ldap.toml", "");
    place.write("connections/ldap.toml", "connector = \"ldap\"\n[types.other]\nclass = \"x\"\n");
    let there = place.run(&format!("{ALL} --to ."));
    assert!(there.code == 5 && there.stderr.contains("connections/ldap.toml is there already"), "{there:?}");
    assert!(!place.path("connections/HR.toml").exists());

    place.write(
        "conf/provisioner.openicf-hra.json",
        &csv(&place).to_string().replace("\"HR\"", "\"HRa\"").replace("\"account\":", "\"ccount\":"),
    );
    let same = place.run("import openidm conf/provisioner.openicf-HR.json conf/provisioner.openicf-hra.json --to out");
    assert!(same.code == 2 && same.stderr.contains("would both be SYSTEMHRACCOUNT"), "{same:?}");
    assert!(!place.path("out").exists());
    place.write("big.json", &" ".repeat(1024 * 1024 + 1));
    for (words, code, parts) in [
        ("import openidm", 2, &["FILES"][..]),
        ("import openidm nope.json", 3, &["nope.json"]),
        ("import openidm big.json", 2, &["big.json", "more than 1048576 bytes"]),
        ("import openidm conf", 2, &["conf", "no regular file"]),
        ("import openidm people/people.csv", 2, &["people/people.csv", "line 1"]),
        ("import midpoint conf", 2, &["midpoint"]),
    ] {
        let ended = place.run(words);
        assert_eq!(ended.code, code, "{words}: {ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)) && ended.stdout.is_empty(), "{words}: {ended:?}");
    }
}
