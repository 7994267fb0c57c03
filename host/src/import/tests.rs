//! Whole files of OpenIDM's shape, and what becomes of them: read back as the host reads it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidewaiter_core::grant::destination::Destination;

use super::*;
use crate::config::{Config, ConnectionConfig};

fn here() -> Here {
    Here { now: UnixMillis(1_795_000_000_000), zone: TimeZone::UTC }
}

fn imported(files: &[(&str, &Value)]) -> Result<Imported, ImportError> {
    let file = |(name, value): &(&str, &Value)| Written { name: (*name).to_owned(), text: value.to_string() };
    openidm(&files.iter().map(file).collect::<Vec<_>>(), &here())
}

fn read(imported: &Imported) -> Config {
    Config::of_documents(&imported.documents, Path::new("/etc/tidewaiter"))
        .unwrap_or_else(|error| panic!("{error}: {:#?}", imported.documents))
}

fn connection(imported: &Imported, name: &str) -> ConnectionConfig {
    (*read(imported).connections[&name.parse().unwrap()]).clone()
}

fn note<'a>(imported: &'a Imported, path: &str) -> &'a Note {
    let found = imported.notes.iter().find(|note| note.path == path);
    found.unwrap_or_else(|| panic!("nothing is said of {path}: {:#?}", imported.notes))
}

const LDAP: &str = "conf/provisioner.openicf-ldap.json";
const CRON: &str = "conf/schedule-ldap.json";

fn ldap() -> Value {
    json!({
        "_id": "provisioner.openicf/ldap",
        "name": "ldap",
        "enabled": true,
        "displayName": "Staff directory",
        "connectorRef": {
            "connectorHostRef": "#LOCAL",
            "bundleName": "org.openidentityplatform.openicf.connectors.ldap-connector",
            "bundleVersion": "[1.4.0.0,2)",
            "connectorName": "org.identityconnectors.ldap.LdapConnector",
            "displayName": "LDAP Connector",
            "systemType": "provisioner.openicf"
        },
        "producerBufferSize": 100,
        "connectorPoolingSupported": true,
        "poolConfigOption": {"maxObjects": 10, "maxIdle": 10, "maxWait": 150_000, "minEvictableIdleTimeMillis": 120_000, "minIdle": 1},
        "operationTimeout": {"CREATE": -1, "TEST": -1, "SEARCH": 60_000, "SYNC": 30_000, "SCHEMA": -1},
        "configurationProperties": {
            "host": "ldap.corp.example",
            "port": 1636,
            "ssl": true,
            "failover": ["ldap://other.corp.example:389/"],
            "principal": "uid=sync,ou=services,dc=corp,dc=example",
            "credentials": {"$crypto": {"type": "x-simple-encryption", "value": {"cipher": "AES/CBC/PKCS5Padding", "data": "bm90aGluZw=="}}},
            "baseContexts": ["ou=people,dc=corp,dc=example"],
            "accountObjectClasses": ["top", "person", "inetOrgPerson"],
            "groupObjectClasses": ["top", "groupOfUniqueNames"],
            "objectClassesToSynchronize": ["inetOrgPerson"],
            "accountSynchronizationFilter": "(!(employeeType=guest))",
            "accountSearchFilter": "(uid=*)",
            "attributesToSynchronize": ["mail"],
            "uidAttribute": "entryUUID",
            "changeNumberAttribute": "changeNumber",
            "changeLogBlockSize": 100,
            "usePagedResultControl": true,
            "passwordAttribute": "userPassword",
            "readSchema": true
        },
        "resultsHandlerConfig": {"enableNormalizingResultsHandler": true, "enableFilteredResultsHandler": false},
        "syncFailureHandler": {"maxRetries": 5, "postRetryAction": "dead-letter-queue"},
        "systemActions": [{"scriptId": "x", "actions": []}],
        "objectTypes": {
            "account": {
                "$schema": "http://json-schema.org/draft-03/schema",
                "id": "__ACCOUNT__",
                "type": "object",
                "nativeType": "__ACCOUNT__",
                "properties": {
                    "dn": {"type": "string", "nativeName": "__NAME__", "nativeType": "string", "required": true},
                    "mail": {"type": "array", "items": {"type": "string"}, "nativeName": "mail", "nativeType": "string"},
                    "givenName": {"type": "string", "nativeName": "givenName", "nativeType": "string"},
                    "login": {"type": "string", "nativeName": "uid", "nativeType": "string"},
                    "userPassword": {"type": "string", "nativeName": "userPassword", "flags": ["NOT_READABLE", "NOT_RETURNED_BY_DEFAULT"]},
                    "groups": {"type": "array", "nativeName": "__GROUPS__"}
                }
            },
            "group": {"nativeType": "__GROUP__", "properties": {"cn": {"type": "string", "nativeName": "cn"}}}
        },
        "operationOptions": {
            "SYNC": {"objectFeatures": {"__GROUP__": {"denied": true, "onDeny": "DO_NOTHING"}}},
            "CREATE": {"objectFeatures": {}, "denied": true}
        }
    })
}

fn schedule(source: &str) -> Value {
    json!({
        "enabled": true, "persisted": true, "concurrentExecution": false, "type": "cron", "schedule": "0/15 * * * * ?",
        "startTime": null, "endTime": null, "timeZone": "UTC", "misfirePolicy": "doNothing", "invokeService": "provisioner",
        "invokeContext": {"action": "liveSync", "source": source}, "invokeLogLevel": "debug"
    })
}

fn people() -> Value {
    json!({
        "name": "people",
        "connectorRef": {"connectorName": "org.forgerock.openicf.csvfile.CSVFileConnector"},
        "configurationProperties": {
            "csvFile": "/srv/exports/hr.csv", "headerUid": "employee_no", "headerName": "login", "headerPassword": "pw",
            "fieldDelimiter": ";", "quoteCharacter": "\"", "newlineString": "\n", "syncFileRetentionCount": 3
        },
        "objectTypes": {"account": {"nativeType": "__ACCOUNT__", "properties": {
            "employee_no": {"type": "string"}, "login": {"type": "string"}, "mail": {"type": "string"}
        }}}
    })
}

fn table() -> Value {
    json!({
        "name": "contractors",
        "connectorRef": {"connectorName": "org.identityconnectors.databasetable.DatabaseTableConnector"},
        "configurationProperties": {
            "host": "db.corp.example", "port": "5433", "user": "sync", "password": "hunter2", "database": "hr", "table": "PEOPLE",
            "keyColumn": "ID", "passwordColumn": "PW", "changeLogColumn": "CHANGED", "quoting": "",
            "jdbcDriver": "org.postgresql.Driver", "jdbcUrlTemplate": "jdbc:postgresql://%h:%p/%d", "enableEmptyString": false
        },
        "objectTypes": {"account": {"nativeType": "__ACCOUNT__", "properties": {"ID": {}, "MAIL": {}, "mailAlias": {"nativeName": "ALIAS"}}}}
    })
}

#[test]
fn a_directory_is_followed_as_before() {
    let imported = imported(&[(LDAP, &ldap()), (CRON, &schedule("system/ldap/account"))]).unwrap();
    let ldap = connection(&imported, "ldap");
    let mut classes = json!({
        "account": {
            "base": "ou=people,dc=corp,dc=example",
            "filter": "(&(objectClass=person)(objectClass=inetOrgPerson)(!(employeeType=guest)))",
            "uid": "entryUUID",
            "attributes": ["givenName", "mail", "uid"],
            "changes": {"by": "changelog"}
        }
    });
    classes["group"] = classes["account"].clone();
    classes["group"]["filter"] = "(objectClass=groupOfUniqueNames)".into();
    classes["group"]["attributes"] = json!(["cn"]);
    let settings = json!({
        "server": "ldap.corp.example:1636", "tls": "required", "bind": "uid=sync,ou=services,dc=corp,dc=example", "classes": classes
    });
    assert_eq!((ldap.connector.as_str(), &ldap.settings), ("ldap", &settings));
    let [account, group] = ["account", "group"].map(|name| &ldap.types[&name.parse().unwrap()]);
    assert_eq!((account.class.as_str(), group.class.as_str(), &group.timing), ("account", "group", &None));
    let timing = account.timing.as_ref().unwrap();
    assert_eq!(
        (timing.to_string().as_str(), timing.misfire),
        ("quartz 0/15 * * * * ? UTC", tidewaiter_core::timing::Misfire::Skip)
    );
    assert_eq!(ldap.limits.call_time_max, Duration::from_secs(30));
    let [tcp] = ldap.access.granted.egress.as_slice() else { panic!("{:?}", ldap.access.granted) };
    assert!(tcp.tls && tcp.to.matches(&Destination::tcp("ldap.corp.example:1636").unwrap()), "{tcp:?}");
    assert_eq!((ldap.access.granted.reveal.as_slice(), ldap.access.secrets.len()), (&["password".to_owned()][..], 1));
    let host_file = imported.host_file.as_deref().unwrap();
    assert!(host_file.contains("[sinks.openidm]") && host_file.contains("\nmax-retries = 5\n"), "{host_file}");
    assert_eq!(note(&imported, "configurationProperties.credentials").fate, Fate::ToDo);
    assert_eq!(note(&imported, "operationOptions.SYNC").fate, Fate::NoCounterpart);
    let text = &imported.documents.connections[&"ldap".parse().unwrap()];
    assert!(text.contains("# - conf/provisioner.openicf-ldap.json: operationOptions.SYNC: "), "{text}");
}

#[test]
fn a_table_is_followed_as_before() {
    let imported = imported(&[("provisioner.openicf-contractors.json", &table())]).unwrap();
    let contractors = connection(&imported, "contractors");
    let class = json!({
        "table": "people", "uid": "id", "changes": {"by": "timestamp", "column": "changed"}, "types": {"pw": "secret"}
    });
    let settings = json!({
        "dialect": "postgresql", "server": "db.corp.example:5433", "tls": "required", "database": "hr", "user": "sync",
        "classes": {"account": class}
    });
    assert_eq!((contractors.connector.as_str(), &contractors.settings), ("sql", &settings));
    let wanted = contractors.types[&"account".parse().unwrap()].attributes.clone().unwrap();
    assert_eq!(wanted, ["alias", "mail"]);
    let quoted = |dialect: &str, quoting: &str| {
        let mut file = table();
        file["configurationProperties"]["jdbcUrlTemplate"] = dialect.into();
        file["configurationProperties"]["quoting"] = quoting.into();
        connection(&super::tests::imported(&[("p.json", &file)]).unwrap(), "contractors").settings
    };
    assert_eq!(quoted("jdbc:postgresql://%h:%p/%d", "DOUBLE")["classes"]["account"]["table"], "PEOPLE");
    let maria = quoted("jdbc:mysql://other.example:3307/people?useSSL=true&password=hunter2", "");
    assert_eq!(
        (&maria["dialect"], &maria["server"], &maria["database"]),
        (&"mariadb".into(), &"other.example:3307".into(), &"people".into())
    );
    assert_eq!(maria["classes"]["account"]["table"], "PEOPLE");
    assert_eq!(quoted("jdbc:oracle:thin:@%h:%p:%d", "").get("dialect"), None);
}

#[test]
fn a_file_of_rows_is_followed_as_before() {
    let imported = imported(&[("people.json", &people()), ("s.json", &schedule("system/people"))]).unwrap();
    let people = connection(&imported, "people");
    let settings = json!({
        "folder": "/srv/exports", "file": "hr.csv", "uid": "employee_no", "name": "login", "delimiter": ";", "types": {"pw": "secret"}
    });
    assert_eq!((people.connector.as_str(), &people.settings), ("csv", &settings));
    assert_eq!(people.access.granted.read, [Path::new("/srv/exports")]);
    let account = &people.types[&"account".parse().unwrap()];
    assert_eq!(account.attributes.as_deref(), Some(&["mail".to_owned()][..]));
    assert!(account.timing.is_some(), "a schedule of all types");
}

/// Every place of a value, from the outside in.
fn places(value: &Value, at: &[String]) -> Vec<Vec<String>> {
    let below = |key: String, value: &Value| places(value, &[at, &[key]].concat());
    let inner: Vec<_> = match value {
        Value::Object(fields) => fields.iter().flat_map(|(key, value)| below(key.clone(), value)).collect(),
        _ => Vec::new(),
    };
    if at.is_empty() { inner } else { [vec![at.to_vec()], inner].concat() }
}

fn without(value: &Value, place: &[String]) -> Value {
    let mut value = value.clone();
    let [outer @ .., last] = place else { unreachable!() };
    let object = outer.iter().fold(&mut value, |value, key| &mut value[key.as_str()]);
    object.as_object_mut().unwrap().remove(last);
    value
}

/// What says the same as nothing, so that leaving it out changes nothing.
const USUAL: [&str; 16] = [
    "enabled",
    // The file is called so, too.
    "name",
    // Either says which connector it is.
    "connectorRef.connectorName",
    // The types are called like their classes.
    "objectTypes.account.nativeType",
    "objectTypes.group.nativeType",
    "connectorRef.connectorHostRef",
    "connectorRef.bundleName",
    "configurationProperties.objectClassesToSynchronize",
    "configurationProperties.changeNumberAttribute",
    "configurationProperties.groupObjectClasses",
    "objectTypes.account.$schema",
    "objectTypes.account.id",
    "objectTypes.account.type",
    "persisted",
    "concurrentExecution",
    "type",
];

#[test]
fn everything_that_is_written_is_taken_over_or_listed() {
    let (provisioner, cron) = (ldap(), schedule("system/ldap/account"));
    let of = |provisioner: &Value, cron: &Value| {
        imported(&[(LDAP, provisioner), (CRON, cron)]).map(|imported| {
            let documents = serde_json::to_string(&imported.documents).unwrap();
            (documents, imported.host_file, imported.notes)
        })
    };
    let (documents, host_file, notes) = of(&provisioner, &cron).unwrap();
    let mut checked = 0;
    for (file, value) in [(LDAP, &provisioner), (CRON, &cron)] {
        for place in places(value, &[]) {
            let path = place.join(".");
            let is_within =
                |note: &Note| note.file == file && (path == note.path || path.starts_with(&format!("{}.", note.path)));
            let is_null = place.iter().fold(value, |value, key| &value[key.as_str()]).is_null();
            if notes.iter().any(is_within) || USUAL.contains(&path.as_str()) || is_null {
                continue;
            }
            let less = without(value, &place);
            let less = if file == LDAP { of(&less, &cron) } else { of(&provisioner, &less) };
            let is_same = less.is_ok_and(|(text, lines, _)| (text, lines) == (documents.clone(), host_file.clone()));
            assert!(!is_same, "{file}: {path} is dropped silently");
            checked += 1;
        }
    }
    assert!(checked >= 20, "{checked}");
}

#[test]
fn keys_that_nobody_knows_are_listed_with_their_path() {
    let mut files = [("ldap.json", ldap()), ("table.json", table()), ("people.json", people())];
    for (_, file) in &mut files {
        file["surprise"] = json!({"a": 1});
        for object in ["connectorRef", "configurationProperties"] {
            file[object]["surprise"] = json!(["x"]);
        }
        file["objectTypes"]["account"]["surprise"] = json!("x");
        file["operationTimeout"]["SURPRISE"] = json!(7);
        file["syncFailureHandler"]["surprise"] = json!(true);
    }
    let mut cron = schedule("system/people/account");
    cron["surprise"] = json!(1);
    cron["invokeContext"]["surprise"] = json!(1);
    let [a, b, c] = &files;
    let imported = imported(&[(a.0, &a.1), (b.0, &b.1), (c.0, &c.1), ("s.json", &cron)]).unwrap();
    let of = |file: &str| -> Vec<&str> {
        imported
            .notes
            .iter()
            .filter(|note| note.file == file && note.path.to_lowercase().contains("surprise"))
            .map(|note| &*note.path)
            .collect()
    };
    for (file, _) in &files {
        let mut paths = of(file);
        paths.sort_unstable();
        let expected = [
            "configurationProperties.surprise",
            "connectorRef.surprise",
            "objectTypes.account.surprise",
            "operationTimeout.SURPRISE",
            "surprise",
            "syncFailureHandler.surprise",
        ];
        assert_eq!(paths, expected, "{file}");
    }
    assert_eq!(of("s.json"), ["invokeContext.surprise", "surprise"]);
    read(&imported);
}

#[test]
fn what_openidm_puts_in_or_decrypts_is_to_be_filled_in_and_no_secret_goes_on() {
    let mut ldap = ldap();
    let secret = json!({"$crypto": {"value": {"data": "hunter2"}, "type": "x-simple-encryption"}});
    for (key, value) in [
        ("host", json!("&{ldap.host}")),
        ("port", json!({"$int": "&{ldap.port|636}"})),
        ("ssl", json!("&{ldap.ssl}")),
        ("principal", json!("&{ldap.principal}")),
        ("credentials", json!("hunter2")),
        ("baseContexts", json!(["&{ldap.base}"])),
        ("accountSynchronizationFilter", secret.clone()),
    ] {
        ldap["configurationProperties"][key] = value;
    }
    let mut people = people();
    people["configurationProperties"]["csvFile"] = json!("&{idm.instance.dir}/data/hr.csv");
    let mut table = table();
    table["configurationProperties"]["jdbcUrlTemplate"] =
        json!("jdbc:postgresql://user:hunter2@db/hr?password=hunter2");
    table["configurationProperties"]["host"] = secret;
    let imported = imported(&[("ldap.json", &ldap), ("people.json", &people), ("table.json", &table)]).unwrap();
    for path in [
        "host",
        "port",
        "ssl",
        "principal",
        "credentials",
        "baseContexts[0]",
        "accountSynchronizationFilter",
        "csvFile",
    ] {
        let note = note(&imported, &format!("configurationProperties.{path}"));
        assert!(note.fate == Fate::ToDo && note.what_to_do.is_some(), "{note:?}");
    }
    let ldap = connection(&imported, "ldap");
    assert_eq!((&ldap.settings["server"], &ldap.settings["tls"]), (&"fill-in.invalid:636".into(), &"required".into()));
    assert_eq!(
        ldap.settings["classes"]["account"]["base"], "&{ldap.base}",
        "no distinguished name, which its connector says"
    );
    let people = connection(&imported, "people");
    assert_eq!(people.settings["folder"], "&{idm.instance.dir}/data");
    let text = serde_json::to_string(&imported).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_path_that_begins_at_openidms_folder_is_none_here() {
    for path in ["data/hr.csv", "./data/hr.csv", "hr.csv"] {
        let mut people = people();
        people["configurationProperties"]["csvFile"] = json!(path);
        let imported = imported(&[("people.json", &people)]).unwrap();
        let folder = connection(&imported, "people").access.granted.read;
        assert!(folder[0].starts_with("/PATH/OF/OPENIDM"), "{path}: {folder:?}");
        assert_eq!(note(&imported, "configurationProperties.csvFile").fate, Fate::ToDo);
    }
}

#[test]
fn schedules_that_do_not_count_are_remarks() {
    for (key, value, counts) in [
        ("enabled", json!(false), false),
        ("enabled", json!("false"), false),
        ("startTime", json!("2020-01-01T00:00:00"), true),
        ("startTime", json!("2090-01-01T00:00:00"), false),
        ("endTime", json!("2020-01-01T00:00:00"), false),
        ("endTime", json!("2090-01-01T00:00:00"), false),
        ("schedule", json!("0 0 0 L-3 * ?"), false),
        ("timeZone", json!("PST8PDT7"), false),
        ("type", json!("simple"), false),
        ("persisted", json!(false), true),
        ("concurrentExecution", json!(true), true),
    ] {
        let mut cron = schedule("/system/ldap/account/");
        cron[key] = value.clone();
        let imported = imported(&[(LDAP, &ldap()), (CRON, &cron)]).unwrap();
        let account = connection(&imported, "ldap").types[&"account".parse().unwrap()].clone();
        assert_eq!(account.timing.is_some(), counts, "{key} {value}");
        assert!(imported.notes.iter().any(|note| note.file == CRON && note.path == key), "{key} {value}");
        let text = &imported.documents.connections[&"ldap".parse().unwrap()];
        let is_remark = text.contains("# quartz = \"0/15 * * * * ?\"");
        assert_eq!(
            is_remark,
            matches!(key, "enabled" | "endTime") || (key == "startTime" && !counts),
            "{key} {value}: {text}"
        );
    }
    let mut off = ldap();
    off["enabled"] = json!(false);
    let imported = imported(&[(LDAP, &off), (CRON, &schedule("system/ldap"))]).unwrap();
    assert!(connection(&imported, "ldap").types.values().all(|of| of.timing.is_none()));
}

#[test]
fn an_interval_goes_on_as_one() {
    let mut cron = schedule("system/ldap/account");
    for (key, value) in [("type", json!("simple")), ("repeatCount", json!(-1)), ("repeatInterval", json!(90_000))] {
        cron[key] = value;
    }
    let imported = imported(&[(LDAP, &ldap()), (CRON, &cron)]).unwrap();
    let account = connection(&imported, "ldap").types[&"account".parse().unwrap()].clone();
    assert_eq!(account.timing.unwrap().to_string(), "every 90 s");
}

#[test]
fn a_type_has_one_schedule_and_the_others_are_listed() {
    let [mut off, mut second] = ["system/ldap", "system/ldap/account"].map(schedule);
    off["enabled"] = json!(false);
    second["schedule"] = json!("0 0/5 * * * ?");
    let third = schedule("system/ldap/account");
    let files = [
        (LDAP, &ldap()),
        ("off.json", &off),
        ("second.json", &second),
        ("third.json", &third),
        ("nobody.json", &schedule("system/crm/account")),
    ];
    let imported = imported(&files).unwrap();
    let account = connection(&imported, "ldap").types[&"account".parse().unwrap()].clone();
    assert_eq!(account.timing.unwrap().to_string(), "quartz 0 0/5 * * * ? UTC");
    let of = |file: &str| {
        imported
            .notes
            .iter()
            .filter(|note| note.file == file && note.path == "invokeContext.source")
            .collect::<Vec<_>>()
    };
    assert_eq!((of("off.json").len(), of("second.json").len(), of("third.json").len()), (1, 0, 1));
    let lines = of("third.json")[0].what_to_do.clone().unwrap();
    assert!(lines.contains("quartz = \"0/15 * * * * ?\", zone = \"UTC\", misfire = \"skip\""), "{lines}");
    assert_eq!(of("nobody.json")[0].fate, Fate::ToDo);
}

#[test]
fn what_is_no_live_sync_is_listed_with_the_command_that_does_the_like() {
    for (service, context, part) in [
        (
            "sync",
            json!({"action": "reconcile", "mapping": "systemLdapAccounts_managedUser"}),
            "`tidewaiter reconcile ldap account`",
        ),
        (
            "org.forgerock.openidm.sync",
            json!({"action": "reconcile", "mapping": "systemLdapGroup_managedRole"}),
            "reconcile ldap group`",
        ),
        (
            "sync",
            json!({"action": "reconcile", "mapping": "managedUser_systemCrm"}),
            "`tidewaiter reconcile CONNECTION TYPE`",
        ),
        ("script", json!({"script": {"type": "text/javascript", "source": "x"}}), "runs the script"),
        ("taskscanner", json!({}), "runs the script"),
    ] {
        let mut cron = schedule("");
        cron["invokeService"] = json!(service);
        cron["invokeContext"] = context;
        let imported = imported(&[(LDAP, &ldap()), (CRON, &cron)]).unwrap();
        let note = note(&imported, "invokeService");
        assert!(note.fate == Fate::NoCounterpart && note.what_to_do.as_ref().unwrap().contains(part), "{note:?}");
    }
}

#[test]
fn names_are_made_fit_and_that_is_said() {
    let mut file = ldap();
    file["name"] = json!("Staff Directory");
    let types = file["objectTypes"].as_object_mut().unwrap();
    let account = types.remove("account").unwrap();
    types.insert("__ACCOUNT__".into(), account);
    types.insert("inetOrg.Person".into(), json!({"nativeType": "inetOrgPerson"}));
    let imported = imported(&[(LDAP, &file), (CRON, &schedule("system/Staff Directory/__ACCOUNT__"))]).unwrap();
    let staff = connection(&imported, "Staff-Directory");
    let types: Vec<String> = staff.types.keys().map(ToString::to_string).collect();
    assert_eq!(types, ["account", "group", "inetOrg-Person"]);
    assert!(staff.types[&"account".parse().unwrap()].timing.is_some(), "schedules have OpenIDM's names");
    assert_eq!(staff.settings["classes"]["inetOrgPerson"]["filter"], "(objectClass=inetOrgPerson)");
    for path in ["name", "objectTypes.__ACCOUNT__", "objectTypes.\"inetOrg.Person\""] {
        assert_eq!(note(&imported, path).fate, Fate::Changed, "{path}");
    }
}

#[test]
fn connectors_that_are_not_known_get_a_name_and_no_settings() {
    for (class, name) in [
        ("org.forgerock.openicf.connectors.scriptedrest.ScriptedRESTConnector", "scriptedrest"),
        ("com.example.Salesforce", "salesforce"),
        ("com.example.Connector", "connector"),
        ("com.example.Süd!Connector", "s-d"),
    ] {
        let mut file = people();
        file["connectorRef"]["connectorName"] = json!(class);
        let imported = imported(&[("p.json", &file)]).unwrap();
        let people = connection(&imported, "people");
        assert_eq!((people.connector.as_str(), &people.settings), (name, &json!({})));
        assert_eq!(note(&imported, "configurationProperties.headerUid").fate, Fate::NoCounterpart);
        assert_eq!(note(&imported, "connectorRef.connectorName").fate, Fate::ToDo);
    }
    let mut file = table();
    file["connectorRef"]["connectorName"] = json!("org.forgerock.openicf.connectors.scriptedsql.ScriptedSQLConnector");
    file["configurationProperties"]["syncScriptFileName"] = json!("/x/Sync.groovy");
    let imported = imported(&[("p.json", &file)]).unwrap();
    assert_eq!(connection(&imported, "contractors").settings["database"], "hr");
    assert!(note(&imported, "configurationProperties.syncScriptFileName").what_to_do.is_some());
}

#[test]
fn ids_that_openidms_scripts_could_not_tell_apart_are_refused() {
    let named = |name: &str, object_type: &str| {
        let mut file = people();
        file["name"] = json!(name);
        file["objectTypes"] = json!({object_type: {"nativeType": "__ACCOUNT__"}});
        file
    };
    let imported = imported(&[("a.json", &named("ab", "c")), ("b.json", &named("a", "bc"))]).unwrap();
    let error = Config::of_documents(&imported.documents, Path::new("/etc/tidewaiter")).unwrap_err().to_string();
    assert!(error.contains("ab/c") && error.contains("a/bc") && error.contains("SYSTEMABC"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_file_and_path() {
    let change = |path: &[&str], value: Value| {
        let mut file = ldap();
        let place = path.iter().fold(&mut file, |value, key| &mut value[*key]);
        *place = value;
        file
    };
    let cases = [
        (json!([]), "it is a list, and not an object"),
        (json!({"a": 1}), "it is neither a provisioner"),
        (change(&["name"], json!(7)), "name: it is a number"),
        (change(&["name"], json!("../ldap")), "name: a name has neither"),
        (change(&["name"], json!("a\u{1b}[2J")), "name: it has control characters"),
        (change(&["name"], json!("-")), "name: \"\" is not a usable name"),
        (change(&["name"], json!("x".repeat(10_000))), "name: a name has at most 64 bytes"),
        (change(&["enabled"], json!("perhaps")), "enabled: it is neither true nor false"),
        (change(&["connectorRef"], json!("x")), "connectorRef: it is a text, and not an object"),
        (change(&["connectorRef", "connectorName"], json!({"a": 1})), "connectorRef.connectorName: it is an object"),
        (change(&["objectTypes"], json!({})), "objectTypes: there is no object type"),
        (change(&["objectTypes"], json!(["account"])), "objectTypes: it is a list"),
        (change(&["objectTypes", "account"], json!("x")), "objectTypes.account: it is a text"),
        (change(&["objectTypes", "a/b"], json!({})), "objectTypes.\"a/b\": a name has neither"),
        (change(&["objectTypes", "__account__"], json!({"nativeType": "x"})), "would be called account here, too"),
        (change(&["objectTypes", "account", "nativeType"], json!(1)), "objectTypes.account.nativeType: it is a number"),
        (
            change(&["objectTypes", "account", "properties", "mail"], json!(1)),
            "objectTypes.account.properties.mail: it is a number",
        ),
        (change(&["operationTimeout", "SYNC"], json!(1e300)), "operationTimeout.SYNC: it is no whole number"),
        (
            change(&["syncFailureHandler", "maxRetries"], json!(u64::MAX)),
            "syncFailureHandler.maxRetries: it is no whole number",
        ),
        (change(&["syncFailureHandler", "maxRetries"], json!(5_000_000_000_u64)), "maxRetries: it is too large"),
        (change(&["configurationProperties", "port"], json!(70_000)), "configurationProperties.port: it is no port"),
        (
            change(&["configurationProperties", "host"], json!("a b/../c")),
            "configurationProperties.host: the host has characters",
        ),
        (
            change(&["configurationProperties", "host"], json!({"a": 1})),
            "configurationProperties.host: it is an object",
        ),
        (change(&["configurationProperties", "ssl"], json!(1)), "configurationProperties.ssl: it is neither"),
        (
            change(&["configurationProperties", "baseContexts"], json!([["x"]])),
            "configurationProperties.baseContexts[0]: it is a list",
        ),
        (
            change(&["configurationProperties", "principal"], json!("x\ny")),
            "configurationProperties.principal: it has control",
        ),
    ];
    for (file, part) in cases {
        let error = imported(&[("conf/p.json", &file)]).unwrap_err().to_string();
        assert!(error.starts_with("conf/p.json: ") && error.contains(part), "{part}: {error}");
        assert!(error.len() < 1000 && !error.chars().any(char::is_control), "{error}");
    }
    for (key, value, part) in [
        ("schedule", json!(15), "schedule: it is a number"),
        ("type", json!("often"), "type: \"often\" is neither cron nor simple"),
        ("misfirePolicy", json!("x"), "misfirePolicy: \"x\" is neither"),
        ("endTime", json!("tomorrow"), "endTime: it is not a time"),
        (
            "invokeContext",
            json!({"action": "liveSync", "source": "system/a/b/c"}),
            "invokeContext.source: it is not of the form",
        ),
        (
            "invokeContext",
            json!({"action": "liveSync", "source": "system/.."}),
            "invokeContext.source: it is not of the form",
        ),
        ("invokeContext", json!({"action": "liveSync"}), "invokeContext.source: it is null"),
    ] {
        let mut cron = schedule("system/ldap/account");
        cron[key] = value;
        let error = imported(&[("conf/s.json", &cron)]).unwrap_err().to_string();
        assert!(error.starts_with("conf/s.json: ") && error.contains(part), "{part}: {error}");
    }
    let twice = imported(&[("a.json", &ldap()), ("b.json", &ldap())]).unwrap_err().to_string();
    assert_eq!(twice, "b.json: name: a.json would be called ldap here, too");
}
