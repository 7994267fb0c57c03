//! A guest that misbehaves on purpose: how is what the setting `do` says, and for `describe`, which gets no settings, a word in
//! the component's bytes that tests overwrite. Speaks to the raw contract, because the SDK would not let it.
#![cfg(target_family = "wasm")]
// The generated export has what it takes to be called from outside.
#![allow(unsafe_code, missing_docs)]

mod faulty;
mod http;
mod queue;
mod revised;
mod tcp;

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Duration;

use tidewaiter_connector::bindings;
use tidewaiter_connector::bindings::exports::tidewaiter::connector as exports;
use tidewaiter_connector::bindings::tidewaiter::connector::sync_results::{Flow, emit, flush};
use tidewaiter_connector::bindings::tidewaiter::connector::types::*;
use tidewaiter_connector::bindings::tidewaiter::connector::{log, search_results, secrets, settings};

struct Hostile;
bindings::__export_bindings!(Hostile with_types_in bindings);

/// Tests overwrite the last word in the file.
static DESCRIBE: &str = "describe:well-behaved";
/// Tests replace this, too.
static VERSION: &str = "version:0.1.0";

/// What the last word says.
fn how() -> &'static str {
    black_box(DESCRIBE).trim_start_matches("describe:").trim()
}

/// The settings.
fn setting(name: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(&settings::get()).unwrap_or_default();
    all[name].clone()
}

fn wanted() -> String {
    setting("do").as_str().unwrap_or_default().to_owned()
}

/// Asks for whatever the settings name.
fn asked() -> Vec<CapabilityRequest> {
    let ask = |capability| CapabilityRequest { capability, reason: "to misbehave".into(), optional: true };
    vec![
        ask(Capability::Http("{settings.ask}".into())),
        ask(Capability::Read("{settings.folder}".into())),
        ask(Capability::Reveal("{settings.secret}".into())),
        ask(Capability::Tcp("{settings.tcp}".into())),
    ]
}

/// What another version asks for beyond that.
/// Settings that are not those of the first version.
const SETTINGS_TWO: &str = r#"{ "required": ["two"], "properties": { "two": { "type": "boolean" } } }"#;

fn asked_more() -> [CapabilityRequest; 3] {
    let more = [
        Capability::Http("{settings.more}".into()),
        Capability::Read("{settings.more_folder}".into()),
        Capability::Reveal("{settings.more_secret}".into()),
    ];
    more.map(|capability| CapabilityRequest { capability, reason: "to go further".into(), optional: true })
}

fn object(uid: &str, values: Vec<Value>) -> ConnectorObject {
    let attribute = Attribute { name: "mail".into(), values, mode: ValueMode::Whole };
    ConnectorObject { uid: uid.into(), name: uid.into(), attributes: vec![attribute] }
}

fn delta(uid: &str) -> SyncDelta {
    of(object(uid, vec![Value::Text("x".into())]))
}

fn of(object: ConnectorObject) -> SyncDelta {
    SyncDelta { object_class: "account".into(), change: Change::Create(object), source_time: None }
}

fn error(message: String) -> ConnectorError {
    ConnectorError { kind: ErrorKind::Other, message, retry_after_ms: None }
}

fn told(result: Result<Flow, Rejection>) -> Result<(), ConnectorError> {
    result.map(drop).map_err(|rejection| error(rejection.message))
}

/// Uses nothing but the stack of calls, and can't be made a loop.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == 0 { 1 } else { recurse(depth - 1).rotate_left(3) ^ depth }
}

impl exports::descriptor::Guest for Hostile {
    fn describe() -> ConnectorInfo {
        let how = how();
        let mut info = ConnectorInfo {
            name: "hostile".into(),
            version: black_box(VERSION).trim_start_matches("version:").into(),
            summary: "Misbehaves.".into(),
            licence: "Apache-2.0".into(),
            operations: vec![Operation::LiveSync, Operation::Search, Operation::SearchByUid],
            settings_schema: "{\"type\":\"object\"}".into(),
            settings_version: 1,
            token_formats_read: vec![],
            token_format_written: String::new(),
            capabilities: asked(),
            all_classes: false,
        };
        match how {
            "trap" => panic!("describe traps"),
            "loop" => loop {
                black_box(0);
            },
            "garbage-name" => info.name = "\u{1b}[2J../../etc".into(),
            "garbage-json" => info.settings_schema = "{{{{".into(),
            "huge-text" => info.summary = "x".repeat(10_000_000),
            "nothing" => info.operations.clear(),
            "only-sync" => info.operations = vec![Operation::LiveSync],
            "format-1" => (info.token_formats_read, info.token_format_written) = (vec!["1".into()], "1".into()),
            "format-2" => (info.token_formats_read, info.token_format_written) = (vec!["2".into()], "2".into()),
            "asks-more" => info.capabilities.extend(asked_more()),
            "needs-more" => {
                info.capabilities.extend(asked_more().map(|request| CapabilityRequest { optional: false, ..request }));
            }
            "settings-two" => (info.settings_version, info.settings_schema) = (2, SETTINGS_TWO.into()),
            "endless-ref" => info.settings_schema = "{\"$ref\": \"#\"}".into(),
            "bad-schema" => info.settings_schema = "{\"type\": \"nonsense\"}".into(),
            _ => {}
        }
        info
    }

    fn migrate_settings(from: u32, settings: String) -> Result<String, ConnectorError> {
        let mut settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
        match settings["migrates"].as_str() {
            Some("traps") => panic!("migrate-settings traps"),
            Some("loops") => loop {
                black_box(0);
            },
            Some("refuses") => return Err(error(format!("there is no way from {from}"))),
            Some("talks") => return Ok("no JSON".into()),
            Some("forgets") => {}
            _ => settings["two"] = (from == 1).into(),
        }
        Ok(settings.to_string())
    }
}

impl exports::schema::Guest for Hostile {
    fn object_classes() -> Result<Vec<ObjectClassInfo>, ConnectorError> {
        let info = |name: &str, value_type| AttributeInfo {
            name: name.into(),
            value_type,
            properties: AttributeFlags::empty(),
        };
        let mut attributes = vec![
            info("mail", ValueType::Text),
            AttributeInfo { properties: AttributeFlags::SENSITIVE, ..info("number", ValueType::Real) },
        ];
        if setting("salary") == true {
            attributes.push(info("salary", ValueType::Text));
        }
        Ok(vec![ObjectClassInfo {
            name: "account".into(),
            attributes,
            reports_deletes: true,
            whole_objects: true,
            changes: if setting("compare") == true { ChangeFeed::ByComparison } else { ChangeFeed::ByToken },
        }])
    }
}

impl exports::check::Guest for Hostile {
    fn check() -> Result<(), ConnectorError> {
        Ok(())
    }
}

impl exports::live_sync::Guest for Hostile {
    fn get_latest_sync_token(_: String) -> Result<Option<SyncToken>, ConnectorError> {
        match wanted().as_str() {
            "connect-first" => {
                tcp::connect_all();
                Ok(Some(SyncToken::Integer(0)))
            }
            "huge-first-token" => Ok(Some(SyncToken::Binary(vec![7; 70_000]))),
            "emit-outside-sync" => {
                let refused = emit(&[delta("outside")], Some(&SyncToken::Integer(9)));
                match refused {
                    Err(Rejection { code: RejectionCode::NotInSync, .. }) => Ok(Some(SyncToken::Integer(0))),
                    _ => Err(error("emit was taken outside sync".into())),
                }
            }
            _ => Ok(Some(SyncToken::Integer(0))),
        }
    }

    fn sync(_: String, token: Option<SyncToken>, _: SyncOptions) -> Result<Option<SyncToken>, ConnectorError> {
        let first = Some(SyncToken::Integer(1));
        match wanted().as_str() {
            "trap-in-the-middle" => {
                told(emit(&[delta("before")], first.as_ref()))?;
                flush().map_err(|rejection| error(rejection.message))?;
                told(emit(&[delta("after")], None))?;
                panic!("in the middle of a change");
            }
            "endless-loop" => loop {
                black_box(0);
            },
            "endless-host-call" => std::thread::sleep(Duration::from_secs(3600)),
            "memory-hog" => {
                let mut hog = Vec::new();
                loop {
                    hog.push(black_box(vec![1u8; 1 << 20]));
                }
            }
            "deep-recursion" => return Err(error(recurse(black_box(u64::MAX)).to_string())),
            "empty-uid" => told(emit(&[delta("good"), delta("")], first.as_ref()))?,
            "too-many-deltas" => told(emit(&vec![delta("x"); 5000], first.as_ref()))?,
            "too-many-bytes" => {
                let large = of(object("x", vec![Value::Text("x".repeat(1_000_000))]));
                told(emit(&vec![large; 9], first.as_ref()))?;
            }
            "host-call-bomb" => {
                let large = of(object("x", vec![Value::Text("x".repeat(1_000_000))]));
                told(emit(&vec![large; 60], first.as_ref()))?;
            }
            "undeclared-class" => {
                told(emit(&[SyncDelta { object_class: "robot".into(), ..delta("r2") }], first.as_ref()))?
            }
            "undeclared-attribute" => {
                let mut unknown = object("x", vec![]);
                unknown.attributes[0].name = "salary".into();
                told(emit(&[of(unknown)], first.as_ref()))?;
            }
            "attribute-twice" => {
                let mut twice = object("x", vec![Value::Text("a".into())]);
                let again = Attribute { name: "MAIL".into(), ..twice.attributes[0].clone() };
                twice.attributes.push(again);
                told(emit(&[of(twice)], first.as_ref()))?;
            }
            "not-a-number" => {
                let mut odd = object("x", vec![Value::Real(f64::NAN)]);
                odd.attributes[0].name = "number".into();
                told(emit(&[of(odd)], first.as_ref()))?;
            }
            // The rejection is swallowed, and the guest claims success.
            "swallow-rejection" => {
                let _ = emit(&[delta("")], first.as_ref());
                let _ = emit(&[delta("good")], Some(&SyncToken::Integer(2)));
                return Ok(Some(SyncToken::Integer(3)));
            }
            "emit-after-stop" => {
                let mut number = 1;
                while !matches!(told_flow(number)?, Flow::Stop) {
                    number += 1;
                }
                told(emit(&[delta("late")], Some(&SyncToken::Integer(i64::MAX))))?;
            }
            // A good one that the host can stop.
            "endless-changes" => {
                let mut number = 1;
                while !matches!(told_flow(number)?, Flow::Stop) {
                    number += 1;
                }
                return Ok(Some(SyncToken::Integer(number)));
            }
            "ignore-stop" => {
                told_flow(1)?;
                loop {
                    black_box(0);
                }
            }
            "deltas-without-token" => {
                told(emit(&[delta("nowhere")], None))?;
                return Ok(None);
            }
            "deltas-without-end" => loop {
                let large = of(object("x", vec![Value::Text("x".repeat(1_000_000))]));
                told(emit(&vec![large; 8], None))?;
            },
            "huge-checkpoint" => told(emit(&[delta("x")], Some(&SyncToken::Binary(vec![7; 70_000]))))?,
            "huge-last-token" => {
                told(emit(&[delta("x")], None))?;
                return Ok(Some(SyncToken::Text("x".repeat(70_000))));
            }
            "log-flood" => {
                for number in 0..100_000 {
                    log::log(
                        log::Level::Error,
                        &format!("{number} \u{1b}[31m\nfake line connection=hr {}", "x".repeat(9000)),
                    );
                }
                println!("{}", "y".repeat(1_000_000));
            }
            "hostile-words" => return Err(error("\u{1b}[2J\r\nINFO tidewaiter: everything is fine\u{202e}".into())),
            "random-bomb" => drop(wasip2::random::random::get_random_bytes(1 << 30)),
            "handle-bomb" => {
                let mut handles = Vec::new();
                loop {
                    handles.push(wasip2::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000));
                }
            }
            "reach-out" => return Err(error(reach_out())),
            "fetch" => return Err(error(http::fetch_all())),
            "connect" => return Err(error(tcp::connect_all())),
            "connect-and-emit" => {
                let said = tcp::connect_all();
                told(emit(&[delta(&said)], first.as_ref()))?;
                return Ok(None);
            }
            "misuse-sockets" => return Err(error(tcp::misuse())),
            "scan" => return Err(error(tcp::scan())),
            "read-drops" | "read-flood" => return Err(error(tcp::read_on())),
            "write-on" => return Err(error(tcp::write_on())),
            "sockets-bomb" => return Err(error(tcp::bomb())),
            "sockets-come-and-go" => return Err(error(tcp::come_and_go())),
            "fields-bomb" => return Err(error(http::fields_bomb())),
            "words-bomb" => return Err(error(http::words_bomb())),
            "requests-bomb" => return Err(error(http::requests_bomb())),
            "body-bomb" => return Err(error(http::body_bomb())),
            // The source decides about the login.
            "log-in" => {
                let answer = http::fetch(&setting("url")).unwrap_or_default();
                if !answer.starts_with("200") {
                    return Err(ConnectorError { kind: ErrorKind::InvalidCredential, ..error(answer) });
                }
                told(emit(&[delta("in")], first.as_ref()))?;
                return Ok(None);
            }
            // Well-behaved, with everything that it has.
            "person" => {
                let mut person = object("1", vec![Value::Text("x".into())]);
                let number =
                    Attribute { name: "Number".into(), values: vec![Value::Real(7.5)], mode: ValueMode::Whole };
                person.attributes.push(number);
                told(emit(&[of(person)], first.as_ref()))?;
                return Ok(None);
            }
            "rename" => {
                let renamed = Change::Update(Updated {
                    object: object("new-uid", vec![Value::Text("secret-2".into())]),
                    previous_uid: Some("old-uid".into()),
                });
                let first_of_it = of(object("old-uid", vec![Value::Text("secret-1".into())]));
                let renamed = SyncDelta { object_class: "account".into(), change: renamed, source_time: None };
                told(emit(&[first_of_it, renamed, delta("other")], first.as_ref()))?;
                return Ok(None);
            }
            "faulty" => return faulty::sync(token),
            "queue" => return queue::sync(token),
            "revised" => return revised::sync(token),
            "list-bomb" => return Err(error(list_bomb())),
            "read-paths" => return Err(error(read_paths())),
            "open-bomb" => {
                let folder = setting("folder");
                let mut open = Vec::new();
                loop {
                    match std::fs::File::open(format!("{}/file", folder.as_str().unwrap_or_default())) {
                        Ok(file) => open.push(file),
                        Err(problem) => return Err(error(format!("{} files: {problem}", open.len()))),
                    }
                }
            }
            "grow-at-once" => {
                let grown = core::arch::wasm32::memory_grow(0, 65_000);
                return Err(error(format!("grown: {}", grown != usize::MAX)));
            }
            "flood-stdout" => loop {
                println!("{}", "z".repeat(100_000));
            },
            "flood-one-line" => loop {
                print!("{}", "z".repeat(100_000));
            },
            "flood-stderr" => loop {
                eprintln!("\u{1b}]0;title\u{7}");
            },
            "spin-in-host-calls" => loop {
                black_box(settings::get());
            },
            "spin-in-rejections" => loop {
                let _ = emit(&[delta("")], None);
            },
            "spin-in-reveals" => loop {
                let _ = secrets::reveal(&"x".repeat(100_000));
            },
            "spin-in-flush" => loop {
                let _ = flush();
            },
            "huge-uid" => told(emit(&[delta(&"u".repeat(2_000_000))], first.as_ref()))?,
            "huge-class" => {
                let class = "c".repeat(2_000_000);
                told(emit(&[SyncDelta { object_class: class, ..delta("x") }], first.as_ref()))?;
            }
            "many-attributes" => {
                let mut many = object("x", vec![]);
                let attribute = many.attributes[0].clone();
                many.attributes =
                    (0..100_000).map(|n| Attribute { name: n.to_string(), ..attribute.clone() }).collect();
                told(emit(&[of(many)], first.as_ref()))?;
            }
            "bad-timestamp" => {
                let mut odd = delta("x");
                odd.source_time = Some("yesterday".into());
                told(emit(&[odd], first.as_ref()))?;
            }
            "huge-error" => return Err(error("e".repeat(10_000_000))),
            "panic-with-words" => panic!("{}", "\u{1b}[2Jp".repeat(1_000_000)),
            "exit" => std::process::exit(0),
            "reveal" => return Err(error(reveal())),
            "log-in-with-what-is-shown" => {
                let kind = ErrorKind::InvalidCredential;
                return Err(ConnectorError { kind, ..error(reveal()) });
            }
            "lose-the-token" => {
                let kind = ErrorKind::InvalidSyncToken;
                return Err(ConnectorError { kind, ..error("the log has been cut".into()) });
            }
            other => return Err(error(format!("nothing to do for {other:?}, {token:?}"))),
        }
        Ok(None)
    }
}

fn told_flow(number: i64) -> Result<Flow, ConnectorError> {
    let uid = number.to_string();
    emit(&[delta(&uid)], Some(&SyncToken::Integer(number))).map_err(|rejection| error(rejection.message))
}

/// Tries every way out, and says which were open.
fn reach_out() -> String {
    let mut open = Vec::new();
    let mut way = |name: &str, is_open: bool| {
        if is_open {
            open.push(name.to_owned());
        }
    };
    for path in ["/", ".", "..", "/etc/passwd", "etc/passwd", "people", "/proc/self/environ"] {
        way(path, std::fs::read_dir(path).is_ok() || std::fs::read(path).is_ok());
    }
    way("write", std::fs::write("/tmp/hostile", "x").is_ok() || std::fs::write("hostile", "x").is_ok());
    way("environment", std::env::vars().next().is_some());
    way("arguments", std::env::args().next().is_some());
    let mut line = String::new();
    way("stdin", std::io::stdin().read_to_string(&mut line).is_ok() && !line.is_empty());
    for address in ["127.0.0.1:22", "127.0.0.1:80", "[::1]:80", "1.1.1.1:53", "localhost:80"] {
        way(address, std::net::TcpStream::connect(address).is_ok());
    }
    way("listen", std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    way("udp", std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", "127.0.0.1:53")).is_ok());
    way("http", http::fetch(&serde_json::json!("http://127.0.0.1:80/")).is_ok());
    way("secret", secrets::reveal("password").is_ok());
    let _ = std::io::stderr().write_all(b"tried everything\n");
    format!("open: {}", if open.is_empty() { "nothing".into() } else { open.join(", ") })
}

/// Reads what the setting `paths` lists, and says what came of each.
fn read_paths() -> String {
    let paths = setting("paths");
    let read = |path: &str| match std::fs::read(path) {
        Ok(text) => format!("read {}", String::from_utf8_lossy(&text)),
        Err(_) if std::fs::read_dir(path).is_ok() => "a folder".into(),
        Err(problem) => format!("{:?}", problem.kind()),
    };
    let mut said: Vec<String> =
        paths.as_array().into_iter().flatten().filter_map(|path| path.as_str()).map(read).collect();
    let folder = setting("folder");
    let folder = folder.as_str().unwrap_or_default();
    let written = [
        std::fs::write(format!("{folder}/new"), "x").is_ok(),
        std::fs::create_dir(format!("{folder}/newer")).is_ok(),
        std::fs::remove_file(format!("{folder}/file")).is_ok(),
        std::fs::rename(format!("{folder}/file"), format!("{folder}/moved")).is_ok(),
        std::fs::hard_link(format!("{folder}/file"), format!("{folder}/linked")).is_ok(),
        std::fs::OpenOptions::new().append(true).open(format!("{folder}/file")).is_ok(),
        std::fs::OpenOptions::new().write(true).truncate(true).open(format!("{folder}/file")).is_ok(),
    ];
    said.push(format!("written {}", written.iter().filter(|done| **done).count()));
    said.join("; ")
}

/// Begins to list its folder, again and again, and reads none of it.
fn list_bomb() -> String {
    let Some((folder, _)) = wasip2::filesystem::preopens::get_directories().pop() else { return "no folder".into() };
    let mut open = Vec::new();
    loop {
        match folder.read_directory() {
            Ok(listing) => open.push(listing),
            Err(problem) => return format!("{} listings: {problem}", open.len()),
        }
    }
}

/// Asks for a secret, and says what it got.
fn reveal() -> String {
    let name = setting("reveal");
    match secrets::reveal(name.as_str().unwrap_or_default()) {
        Ok(secret) => format!("secret: {}", String::from_utf8_lossy(&secret)),
        Err(secrets::Refusal::Unknown) => "refused: unknown".into(),
        Err(secrets::Refusal::NotGranted) => "refused: not granted".into(),
    }
}

impl exports::search::Guest for Hostile {
    fn search(
        _: String,
        filter: Filter,
        page: Option<Vec<u8>>,
        _: SyncOptions,
    ) -> Result<Option<Vec<u8>>, ConnectorError> {
        let objects = |uids: &[&str]| -> Vec<_> { uids.iter().map(|uid| object(uid, vec![])).collect() };
        match wanted().as_str() {
            "faulty" => match &filter {
                Filter::All => faulty::search(None)?,
                Filter::ByUid(uid) => faulty::search(Some(uid))?,
            },
            "search-changes" => told(emit(&[delta("x")], Some(&SyncToken::Integer(9))))?,
            "search-other" => told(search_results::emit(&objects(&["wanted", "other"])))?,
            "search-traps" => {
                told(search_results::emit(&objects(&["read"])))?;
                panic!("in the middle of a page");
            }
            "search-stays" => return Ok(Some(page.unwrap_or_else(|| b"here".to_vec()))),
            "search-has-no-end" => {
                let last = page.map_or(0, |page| u64::from_le_bytes(page.try_into().unwrap_or_default()));
                return Ok(Some((last + 1).to_le_bytes().to_vec()));
            }
            "search-far" => return Ok(Some(vec![7; 70_000])),
            "search-loses-the-token" => {
                let message = "the log has been cut".to_owned();
                return Err(ConnectorError { kind: ErrorKind::InvalidSyncToken, message, retry_after_ms: None });
            }
            _ => {}
        }
        Ok(None)
    }
}
