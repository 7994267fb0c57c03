//! The log as text and as JSON: the same fields by the same names.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tidewaiter_tests::{Place, lines};

/// What a line begins with, whatever it says.
const HEAD: [&str; 3] = ["timestamp", "level", "target"];

/// The log of a server that makes a run well, and another one that fails.
fn logged(format: &str) -> Vec<String> {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let server = place.start_by(place.command(&["serve", "--log-format", format]));
    server.wait_for("serving", 0);
    assert_eq!(place.run("sync hr account").code, 0);
    place.people("1,a@y,2026-03-02T08:00:00Z,\n2,b@x,not a time,\n");
    assert_eq!(place.run("sync hr account").code, 4);
    let (code, mut log) = server.end();
    assert_eq!((code, log.pop().as_deref()), (0, Some("(the log ends)")));
    log
}

/// The names of the fields of each message of a run. Its texts have no ` NAME=` of their own.
fn of_text(log: &[String]) -> BTreeMap<String, Vec<String>> {
    let runs = log.iter().filter_map(|line| line.split_once(" tidewaiter::run: "));
    let names = |line: &str| {
        let words = line.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name.to_owned());
        words.collect::<Vec<_>>()
    };
    let message = |line: &str| {
        let words = line.split(' ').take_while(|word| !word.contains('=')).collect::<Vec<_>>();
        words.join(" ")
    };
    runs.map(|(_, line)| (message(line), names(line))).collect()
}

fn of_json(log: &[Json]) -> BTreeMap<String, Vec<String>> {
    let runs = log.iter().filter(|line| line["target"] == "tidewaiter::run");
    let names = |line: &Json| {
        let names =
            line.as_object().unwrap().keys().filter(|name| !HEAD.contains(&name.as_str()) && *name != "message");
        let mut names: Vec<String> = names.cloned().collect();
        names.sort();
        names
    };
    runs.map(|line| (line["message"].as_str().unwrap().to_owned(), names(line))).collect()
}

#[test]
fn each_line_is_an_object_with_the_fields_that_the_text_has() {
    let text = logged("text");
    let log = lines(&logged("json").join("\n"));
    for line in &log {
        assert!(HEAD.iter().all(|name| line[name].is_string()) && line["message"].is_string(), "{line}");
    }
    let mut told = of_text(&text);
    told.values_mut().for_each(|names| names.sort());
    assert_eq!(of_json(&log), told, "{}", text.join("\n"));
    assert!(told.len() > 4, "{told:?}");

    let ended: Vec<&Json> = log.iter().filter(|line| line["message"] == "run ended").collect();
    let said = |line: &Json, name: &str| line[name].clone();
    assert_eq!(ended.len(), 2, "{log:?}");
    for (line, (run, outcome, level)) in ended.iter().zip([(1, "ok", "INFO"), (2, "failed", "INFO")]) {
        assert_eq!((said(line, "connection"), said(line, "type")), ("hr".into(), "account".into()));
        assert_eq!((said(line, "run"), said(line, "outcome")), (run.into(), outcome.into()), "numbers stay numbers");
        assert_eq!(said(line, "level"), level);
    }
    let warned = log.iter().find(|line| line["level"] == "WARN").unwrap();
    assert!(warned["code"].is_string(), "{warned}");
}

#[test]
fn the_last_line_says_with_what_a_server_ended_that_could_not_start() {
    let place = Place::new();
    place.write("connections/hr.toml", "connector = \"csv\"\n\"quoted\" = 1\n");
    let refused = place.run("serve --log-format json --log off");
    assert_eq!(refused.code, 2, "{refused:?}");
    let said = lines(&refused.stderr);
    assert_eq!((said.len(), &said[0]["level"], &said[0]["exit"]), (1, &"ERROR".into(), &2.into()), "{said:?}");
    assert!(said[0]["message"].as_str().unwrap().contains("quoted"), "{said:?}");
    let text = place.run("serve --log off");
    assert!(text.stderr.starts_with("tidewaiter: ") && text.stderr.contains("quoted"), "{text:?}");
}
