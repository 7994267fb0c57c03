//! What is read out of files, and what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::io::Write;
use std::time::Duration;

use serde_json::json;
use support::{Folder, object, uids};
use tidewaiter_connector::{AttributeFlags, Change, ErrorKind, Object, Value, ValueType};

#[test]
fn cells_are_read_by_rfc_4180() {
    for (content, settings, expected) in [
        ("id,at,text\na,2026-03-01,\"x, \"\"y\"\"\"\n", json!({}), "x, \"y\""),
        ("id,at,text\na,2026-03-01,\"two\nlines\"\n", json!({}), "two\nlines"),
        ("id,at,text\r\na,2026-03-01,crlf\r\n", json!({}), "crlf"),
        ("\u{feff}id,at,text\na,2026-03-01,bom\n", json!({}), "bom"),
        ("\n\nid;at;text\n\n\na;2026-03-01;x,y\n\n", json!({"delimiter": ";"}), "x,y"),
        ("id\tat\ttext\na\t2026-03-01\ttabs\n", json!({"delimiter": "\t"}), "tabs"),
        ("text,AT,Id\norder,2026-03-01,a\n", json!({}), "order"),
    ] {
        let folder = Folder::of(content);
        let run = folder.connection(settings).replays_exactly("account", None);
        assert_eq!(uids(&run), ["a"], "{content:?}");
        let values = object(run.deltas()[0]).get("text").unwrap().to_vec();
        assert_eq!(values, [Value::from(expected)], "{content:?}");
    }
}

#[test]
fn a_row_that_begins_with_a_byte_order_mark_keeps_it() {
    let folder = Folder::of("id,at\n\u{feff}a,2026-03-01\n");
    assert_eq!(uids(&folder.sync(json!({}))), ["\u{feff}a"]);
}

#[test]
fn a_row_becomes_a_delta() {
    let folder = Folder::of("id,login,at,groups,age,fax\n7,ada,2026-03-01 08:00:00,x|y,36,\n");
    let settings = json!({"name": "login", "types": {"AGE": "integer"}, "lists": {"groups": "|"}, "zone": "+01:00", "class": "person"});
    let connection = folder.connection(settings);
    let run = connection.sync("person", None);
    let time = "2026-03-01T07:00:00Z";
    let expected = Object::new("7", "ada")
        .with("at", Value::Timestamp(time.to_owned()))
        .with("groups", ["x", "y"])
        .with("age", 36)
        .with("fax", None::<&str>);
    let delta = run.deltas()[0];
    assert_eq!((delta.object_class.as_str(), object(delta)), ("person", &expected));
    assert_eq!(delta.source_time.as_deref(), Some(time));

    let classes = connection.object_classes().unwrap();
    let attributes: Vec<_> =
        classes[0].attributes.iter().map(|a| (a.name.as_str(), a.value_type, a.properties)).collect();
    let none = AttributeFlags::empty();
    let expected = [
        ("at", ValueType::Timestamp, none),
        ("groups", ValueType::Text, AttributeFlags::MULTI_VALUED),
        ("age", ValueType::Integer, none),
        ("fax", ValueType::Text, none),
    ];
    assert_eq!(attributes, expected);
    assert!(classes[0].whole_objects && !classes[0].reports_deletes);
    assert_eq!(connection.check(), Ok(()));
}

#[test]
fn only_wanted_attributes_are_handed_over() {
    let folder = Folder::of("id,at,mail,phone\na,2026-03-01,m,p\n");
    let connection = folder.connection(json!({})).options(|options| options.attributes = Some(vec!["MAIL".to_owned()]));
    let run = connection.sync("account", None);
    assert_eq!(object(run.deltas()[0]), &Object::new("a", "a").with("mail", "m"));
}

#[test]
fn a_row_with_a_time_of_deletion_is_a_deletion_at_the_later_time() {
    let folder = Folder::of("id,at,gone,age\na,2026-03-01,2026-03-05,x\nb,2026-03-04,2026-03-02,3\n");
    let settings = json!({"deleted_at": "gone", "types": {"age": "integer"}});
    let run = folder.connection(settings).replays_exactly("account", None);
    assert_eq!(uids(&run), ["b", "a"]);
    let times: Vec<_> = run.deltas().iter().map(|delta| delta.source_time.clone().unwrap()).collect();
    assert_eq!(times, ["2026-03-04T00:00:00Z", "2026-03-05T00:00:00Z"]);
    let known = |index: usize| match &run.deltas()[index].change {
        Change::Delete(deleted) => deleted.last_known.is_some(),
        other => panic!("{other:?}"),
    };
    // A cell that can't be read must not hold a deletion up.
    assert_eq!((known(0), known(1)), (true, false));
}

#[test]
fn a_bad_row_fails_the_run_and_is_named() {
    for (row, expected) in [
        ("a,2026-03-01", "line 3: 2 cells, where the header names 3 columns"),
        (",2026-03-01,1", "line 3, column \"id\": no uid"),
        ("a,soon,1", "line 3, column \"at\": \"soon\" is not a time"),
        ("a,2026-03-01,many", "line 3, column \"age\": \"many\" is not a whole number of 64 bits"),
    ] {
        let folder = Folder::of(format!("id,at,age\n\n{row}\nz,2026-03-02,1\n"));
        let settings = json!({"types": {"age": "integer"}});
        let error = folder.error(settings.clone());
        assert_eq!(error.kind(), ErrorKind::Retryable);
        assert_eq!(error.message(), format!("people.csv: {expected}"));
        assert_eq!(folder.connection(settings).check(), Err(error));
    }
}

#[test]
fn a_cell_that_is_not_utf_8_is_a_bad_row() {
    let folder = Folder::of(b"id,at,text\na,2026-03-01,\xff\n");
    assert!(folder.error(json!({})).message().contains("line 2, column \"text\": not UTF-8"));
}

#[test]
fn bad_rows_can_be_skipped_with_a_warning() {
    let folder = Folder::of("id,at,age\na,2026-03-01,x\nb,2026-03-01,1\nc,soon,1\n");
    let settings = json!({"types": {"age": "integer"}, "bad_rows": "skip"});
    let run = folder.connection(settings).batches_of(1).replays_exactly("account", None);
    assert_eq!(uids(&run), ["b"]);
    assert_eq!(run.log.len(), 2);
}

#[test]
fn what_comes_before_a_bad_cell_is_delivered() {
    let folder = Folder::of("id,at,age\na,2026-03-01,1\nb,2026-03-02,x\n");
    let run = folder.connection(json!({"types": {"age": "integer"}})).batches_of(1).sync("account", None);
    assert!(run.outcome.is_err());
    assert_eq!(run.journaled().len(), 1);
}

#[test]
fn files_are_chosen_by_name_or_are_all_csv_files() {
    let folder = Folder::new();
    for name in ["a.csv", "b.CSV", ".c.csv", "d.txt"] {
        folder.write(name, format!("id,at\n{name},2026-03-01\n"));
    }
    for (settings, expected) in [
        (json!({}), vec!["a.csv", "b.CSV"]),
        (json!({"file": "d.txt"}), vec!["d.txt"]),
        (json!({"files": ["d.txt", "a.csv"]}), vec!["a.csv", "d.txt"]),
    ] {
        let run = folder.sync(settings);
        let mut found = uids(&run);
        found.sort_unstable();
        assert_eq!(found, expected);
    }
    assert_eq!(Folder::new().sync(json!({})).outcome, Ok(None));
}

#[test]
fn files_may_have_different_columns() {
    let folder = Folder::new();
    folder.write("a.csv", "id,at,mail\na,2026-03-02,m\n");
    folder.write("b.csv", "phone,at,id\np,2026-03-01,b\n");
    let connection = folder.connection(json!({}));
    assert_eq!(uids(&connection.replays_exactly("account", None)), ["b", "a"]);
    let names: Vec<_> = connection.object_classes().unwrap()[0].attributes.iter().map(|a| a.name.clone()).collect();
    assert_eq!(names, ["at", "mail", "phone"]);
}

#[test]
fn settings_that_can_not_work_are_named() {
    let folder = Folder::of("id,at\na,2026-03-01\n");
    for (settings, expected) in [
        (json!({"uid": "nr"}), "people.csv: no column \"nr\" (setting `uid`); there are: id, at"),
        (json!({"deleted_at": "gone"}), "people.csv: no column \"gone\" (setting `deleted_at`)"),
        (json!({"uid": null}), "settings: missing field `uid`"),
        (json!({"colour": 1}), "setting `colour`: unknown field"),
        (json!({"file": "../x"}), "setting `file`: \"../x\" is not the name of a file"),
        (json!({"file": "a", "files": ["b"]}), "settings `file` and `files`"),
        (json!({"delimiter": "::"}), "setting `delimiter`"),
        (json!({"zone": "CET"}), "setting `zone`"),
        (json!({"types": {"x": "colour"}}), "setting `types.x`: unknown variant `colour`"),
        (json!({"lists": {"x": ""}}), "setting `lists`: the separator of \"x\" is empty"),
    ] {
        let error = folder.error(settings);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.message().starts_with(expected), "{error}");
    }
    let error = folder.connection(json!({"types": {"x": "text"}})).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    for header in ["id,at,id\n", "id,at,,x\n"] {
        assert_eq!(Folder::of(header).error(json!({})).kind(), ErrorKind::Configuration);
    }
    assert_eq!(
        folder.connection(json!({})).sync("group", None).outcome.unwrap_err().kind(),
        ErrorKind::UnknownObjectClass
    );
}

#[test]
fn a_file_that_is_not_there_or_empty_may_come_yet() {
    let folder = Folder::of("");
    assert_eq!(folder.error(json!({})).kind(), ErrorKind::Retryable);
    let error = folder.error(json!({"file": "other.csv"}));
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert!(error.message().starts_with("other.csv: "), "{error}");
}

#[test]
fn a_last_line_without_line_end_counts_only_when_the_file_is_at_rest() {
    let folder = Folder::of("id,at\na,2026-03-01\nb,2026-03-01");
    assert_eq!(uids(&folder.sync(json!({"settle_ms": 0}))), ["a"]);
    let run = folder.sync(json!({"settle_ms": 1}));
    assert_eq!(run.deltas().len(), 2);
    folder.write("people.csv", "id,at\na,2026-03-01\n\"b,2026-03-01");
    assert_eq!(uids(&folder.sync(json!({"settle_ms": 0}))), ["a"]);
    assert!(folder.error(json!({"settle_ms": 1})).message().contains("line 3: a quote is not closed"));
}

#[test]
fn half_a_line_that_is_completed_later_is_not_lost() {
    let folder = Folder::of("id,at\na,2026-03-01\nbo");
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(folder.path("people.csv")).unwrap();
    file.write_all(b"b,2026-03-01\n").unwrap();
    assert_eq!(uids(&connection.replays_exactly("account", token)), ["bob"]);
}

#[test]
fn a_file_that_keeps_growing_is_not_read() {
    let folder = Folder::of("id,at\n");
    let path = folder.path("people.csv");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
            file.write_all(b"a,2026-03-01\n").unwrap();
        }
    });
    let error = folder.error(json!({"settle_ms": 300}));
    stop.send(()).unwrap();
    writer.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Retryable);
    assert!(error.message().starts_with("people.csv is still being written"), "{error}");
}

#[test]
fn a_clock_that_was_set_back_only_costs_the_time_to_watch() {
    let folder = Folder::of("id,at\na,2026-03-01\n");
    let file = fs::File::options().write(true).open(folder.path("people.csv")).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).unwrap();
    assert_eq!(uids(&folder.sync(json!({"settle_ms": 200}))), ["a"]);
}
