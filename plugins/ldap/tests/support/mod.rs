//! What tests of all servers share: connections, people, and what was told of them.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use ldap::Ldap;
use serde_json::{Value as Json, json};
use tidewaiter_connector::testing::{Connection, Run};
use tidewaiter_connector::{Change, Error, ErrorKind, Object, SyncToken, Value};
use tidewaiter_servers::{Ds389, OpenLdap};

pub(crate) const PEOPLE: &str = "ou=people,dc=example,dc=com";
/// The tree, and where people are.
pub(crate) const TREE: &str = "dn: dc=example,dc=com
objectClass: domain
dc: example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=others,dc=example,dc=com
objectClass: organizationalUnit
ou: others
";

/// A server of either kind.
pub(crate) trait Directory {
    fn settings(&self) -> Json;
    fn password(&self) -> &'static str;
    fn uid(&self) -> &'static str;
    fn change(&self, ldif: &str);
}

impl Directory for OpenLdap {
    fn settings(&self) -> Json {
        json!({ "server": format!("127.0.0.1:{}", self.port()), "tls": "off", "bind": Self::ADMINISTRATOR })
    }

    fn password(&self) -> &'static str {
        Self::PASSWORD
    }

    fn uid(&self) -> &'static str {
        "entryUUID"
    }

    fn change(&self, ldif: &str) {
        Self::change(self, ldif);
    }
}

impl Directory for Ds389 {
    fn settings(&self) -> Json {
        json!({ "server": format!("127.0.0.1:{}", self.port()), "tls": "off", "bind": Self::MANAGER })
    }

    fn password(&self) -> &'static str {
        Self::PASSWORD
    }

    fn uid(&self) -> &'static str {
        "nsUniqueId"
    }

    fn change(&self, ldif: &str) {
        Self::change(self, ldif);
    }
}

pub(crate) fn by_syncrepl() -> Json {
    json!({ "by": "syncrepl" })
}

pub(crate) fn by_time() -> Json {
    json!({ "by": "timestamp", "lag_ms": 1000 })
}

/// Until the second is another one, so that what comes next has another time.
pub(crate) fn next_second() {
    thread::sleep(Duration::from_millis(1100));
}

/// A connection with these classes.
pub(crate) fn connection(server: &dyn Directory, classes: Json) -> Connection<Ldap> {
    let mut settings = server.settings();
    settings["classes"] = classes;
    Connection::new(settings).secret("password", server.password())
}

/// The class `account`, with more settings.
pub(crate) fn account(server: &dyn Directory, more: Json) -> Json {
    let mut class = json!({
        "base": PEOPLE, "filter": "(objectClass=inetOrgPerson)", "uid": server.uid(), "name": "uid",
        "attributes": ["uid", "sn", "mail", "description"],
    });
    for (key, value) in more.as_object().unwrap() {
        class[key] = value.clone();
    }
    json!({ "account": class })
}

/// People, found by `changes`.
pub(crate) fn people(server: &dyn Directory, changes: Json) -> Connection<Ldap> {
    connection(server, account(server, json!({ "changes": changes })))
}

/// A person, to be added.
pub(crate) fn person(uid: &str, sn: &str) -> String {
    person_below(PEOPLE, uid, sn)
}

pub(crate) fn person_below(base: &str, uid: &str, sn: &str) -> String {
    format!("dn: uid={uid},{base}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {sn}\n\n")
}

/// A change of a person's name.
pub(crate) fn renamed(uid: &str, sn: &str) -> String {
    format!("dn: uid={uid},{PEOPLE}\nchangetype: modify\nreplace: sn\nsn: {sn}\n\n")
}

pub(crate) fn gone(uid: &str) -> String {
    format!("dn: uid={uid},{PEOPLE}\nchangetype: delete\n\n")
}

/// A new name within, or to another place.
pub(crate) fn moved(uid: &str, to: &str, place: Option<&str>) -> String {
    let place = place.map_or(String::new(), |place| format!("newsuperior: {place}\n"));
    format!("dn: uid={uid},{PEOPLE}\nchangetype: modrdn\nnewrdn: uid={to}\ndeleteoldrdn: 1\n{place}\n")
}

pub(crate) fn texts(object: &Object, name: &str) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    object.get(name).unwrap_or_default().iter().map(text).collect()
}

/// The uids of people, by what they are called, as far as a run told of them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// What was handed over, one text a change: name and `sn`, or `-` and the name by which the uid was known before.
    pub(crate) fn told(&mut self, run: &Run) -> Vec<String> {
        if let Err(error) = &run.outcome {
            panic!("{error}");
        }
        let mut text = |change: &Change| match change {
            Change::CreateOrUpdate(updated) => {
                let object = &updated.object;
                self.0.insert(object.uid.clone(), object.name.clone());
                format!("{} {}", object.name, texts(object, "sn").join("+"))
            }
            Change::Delete(deleted) => {
                let name = self.0.get(&deleted.uid).cloned();
                format!("-{}", name.unwrap_or_else(|| "?".to_owned()))
            }
            other => format!("{other:?}"),
        };
        run.deltas().into_iter().map(|delta| text(&delta.change)).collect()
    }

    /// The same, sorted: where the server's order is its own.
    pub(crate) fn sorted(&mut self, run: &Run) -> Vec<String> {
        let mut told = self.told(run);
        told.sort();
        told
    }
}

/// Asserts that a token is refused, with this part in the message.
#[track_caller]
pub(crate) fn refused(connection: &Connection<Ldap>, token: impl Into<SyncToken>, part: &str) {
    let run = connection.sync("account", Some(token.into()));
    let error = run.outcome.expect_err("it was taken");
    assert!(error.kind() == ErrorKind::InvalidSyncToken && error.message().contains(part), "{error:?}");
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(outcome: Result<T, Error>, kind: ErrorKind, part: &str) {
    let error = outcome.expect_err("it worked");
    assert!(error.kind() == kind && error.message().contains(part), "{error:?}");
}

/// A token with something else in it.
pub(crate) fn altered(token: &SyncToken, path: &str, value: Json) -> SyncToken {
    let mut json: Json = serde_json::from_str(token.as_text().unwrap()).unwrap();
    *json.pointer_mut(path).unwrap() = value;
    SyncToken::Text(json.to_string())
}

/// What readers promise beside writers.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) connection: Connection<Ldap>,
    /// It tells of deletions.
    pub(crate) sees_deletions: bool,
}

/// Six writers at once; they add people, change some, delete some. Each reader follows them, and in the end has everybody, with the name
/// that was written last; it told of nobody more often than somebody wrote of them; and of those who were only added exactly once.
pub(crate) fn beside_writers<S: Directory + Sync>(server: &S, readers: Vec<Reader>) {
    const EACH: usize = 60;
    let mut readers: Vec<_> = readers
        .into_iter()
        .map(|reader| {
            let token = reader.connection.latest_sync_token("account").unwrap();
            (reader, token, BTreeMap::<String, usize>::new(), BTreeMap::<String, String>::new())
        })
        .collect();
    let mut early = usize::MAX;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let uid = format!("w{writer}-{n}");
                        let mut ldif = person(&uid, "one");
                        if n % 3 == 1 {
                            ldif.push_str(&renamed(&uid, "two"));
                        }
                        if n % 5 == 4 {
                            ldif.push_str(&gone(&uid));
                        }
                        server.change(&ldif);
                        thread::sleep(Duration::from_millis((writer * 7 + n as u64 * 13) % 40));
                    }
                })
            })
            .collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            readers.iter_mut().for_each(follow);
            early = early.min(readers.iter().map(|reader| reader.2.len()).min().unwrap());
            if early == 0 {
                early = usize::MAX;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    });
    readers.iter_mut().for_each(follow);
    let was_deleted = |n: usize| n % 5 == 4;
    for (reader, _, times, last) in &readers {
        let mut problems = Vec::new();
        for (writer, n) in (0..6).flat_map(|writer| (0..EACH).map(move |n| (writer, n))) {
            let uid = format!("w{writer}-{n}");
            let wanted = match (was_deleted(n), n % 3 == 1) {
                (true, _) if reader.sees_deletions => "gone",
                (true, _) => continue,
                (false, true) => "two",
                (false, false) => "one",
            };
            let writes = 1 + usize::from(n % 3 == 1) + usize::from(was_deleted(n));
            let (last, times) =
                (last.get(&uid).map_or("nothing", String::as_str), times.get(&uid).copied().unwrap_or(0));
            // What came and went between two runs may never be told of.
            if last != wanted && !(wanted == "gone" && last == "nothing") || times > writes {
                problems.push(format!("{uid}: {last} after {times} of {writes}, and not {wanted}"));
            }
        }
        assert!(problems.is_empty(), "{}: {problems:#?}", reader.name);
    }
    assert!(early < 6 * EACH, "it was read while others wrote");
}

type Following = (Reader, Option<SyncToken>, BTreeMap<String, usize>, BTreeMap<String, String>);

fn follow((reader, token, times, last): &mut Following) {
    let run = reader.connection.sync("account", token.clone());
    if let Err(error) = &run.outcome {
        panic!("{}: {error}", reader.name);
    }
    for delta in run.deltas() {
        let uid = delta.uid().to_owned();
        match &delta.change {
            Change::CreateOrUpdate(updated) => {
                let name = updated.object.name.clone();
                *times.entry(name.clone()).or_default() += 1;
                last.insert(name.clone(), texts(&updated.object, "sn").join("+"));
                last.insert(uid, name);
            }
            Change::Delete(_) => {
                if let Some(name) = last.get(&uid).cloned() {
                    *times.entry(name.clone()).or_default() += 1;
                    last.insert(name, "gone".to_owned());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    *token = run.token();
}
