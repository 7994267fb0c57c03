//! Reading all rows as they are now: without times, where the host compares, and with times, for a reconciliation.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use serde_json::json;
use support::Folder;
use tidewaiter_connector::{ChangeFeed, ErrorKind, Filter, Object, Value};

fn names(objects: &[Object]) -> Vec<(&str, &str)> {
    objects.iter().map(|object| (object.uid.as_str(), object.name.as_str())).collect()
}

#[test]
fn without_a_column_of_times_all_rows_are_read_and_there_is_no_token() {
    let folder = Folder::of("id,login,left\n1,ann,\n2,bob,yes\n3,cid,\n");
    let connection = folder.connection(json!({ "updated_at": null, "name": "login", "deleted_at": "left" }));
    let classes = connection.object_classes().unwrap();
    assert_eq!(classes[0].changes, ChangeFeed::ByComparison);
    let objects = connection.search("account", Filter::All).unwrap();
    assert_eq!(names(&objects), [("1", "ann"), ("3", "cid")], "who left isn't there");
    let error = connection.sync("account", None).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`updated_at`"), "{error:?}");
    let error = connection.search("account", Filter::ByUid("1".into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn of_rows_with_times_the_newest_of_each_uid_is_the_object() {
    let folder = Folder::of("id,at,gone,mail\na,2026-03-01,,old\nb,2026-03-01,,b\nc,2026-03-01,,c\n");
    folder.write("more.csv", "id,at,gone,mail\na,2026-03-02,,new\nc,2026-03-02,2026-03-02,c\nb,2026-02-01,,older\n");
    let connection = folder.connection(json!({ "deleted_at": "gone" }));
    let mut objects = connection.search("account", Filter::All).unwrap();
    objects.sort_by(|one, other| one.uid.cmp(&other.uid));
    let mails: Vec<(&str, &[Value])> =
        objects.iter().map(|object| (object.uid.as_str(), object.get("mail").unwrap())).collect();
    let text = |text: &str| vec![Value::Text(text.to_owned())];
    assert_eq!(mails, [("a", text("new").as_slice()), ("b", text("b").as_slice())]);
    // As a run that begins with the first change leaves it.
    let run = connection.sync("account", None);
    let last = run.deltas().into_iter().rev().find(|delta| delta.uid() == "a").unwrap();
    assert_eq!(support::object(last), &objects[0]);
}

#[test]
fn nothing_is_left_out_because_that_would_look_like_a_deletion() {
    for (content, part) in [
        ("id,mail\n1,a\n2\n", "people.csv: line 3: 1 cells, where the header names 2 columns"),
        ("id,mail\n1,a\n,b\n", "people.csv: line 3, column \"id\": no uid"),
        ("id,mail\n1,a\n1,b\n", "people.csv: line 3, column \"id\": \"1\" is there twice"),
        ("id,mail\n1,a\n2,b", "people.csv is still being written"),
        ("id,mail\n1,a\n2,\"b\n", "people.csv"),
    ] {
        let folder = Folder::of(content);
        let connection = folder.connection(json!({ "updated_at": null, "bad_rows": "skip" }));
        let error = connection.search("account", Filter::All).unwrap_err();
        assert!(error.message().starts_with(part), "{content:?}: {error:?}");
    }
    // Two files, one uid.
    let folder = Folder::of("id,mail\n1,a\n");
    folder.write("zoo.csv", "id,mail\n1,a\n");
    let error = folder.connection(json!({ "updated_at": null })).search("account", Filter::All).unwrap_err();
    assert!(error.message().starts_with("zoo.csv: line 2"), "{error:?}");
    // With times, too.
    let folder = Folder::of("id,at\n1,2026-03-01\n2,never\n");
    let error = folder.connection(json!({ "bad_rows": "skip" })).search("account", Filter::All).unwrap_err();
    assert!(error.message().starts_with("people.csv: line 3, column \"at\": \"never\" is not a time"), "{error:?}");
}

#[test]
fn no_row_and_no_file_are_no_object_and_not_an_error() {
    let folder = Folder::of("id,mail\n");
    assert_eq!(folder.connection(json!({ "updated_at": null })).search("account", Filter::All).unwrap(), []);
    let folder = Folder::new();
    assert_eq!(folder.connection(json!({ "updated_at": null })).search("account", Filter::All).unwrap(), []);
    let named = folder.connection(json!({ "updated_at": null, "file": "people.csv" }));
    assert!(named.search("account", Filter::All).is_err(), "a file that is named has to be there");
}
