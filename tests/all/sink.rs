//! Delivery to a file that fails, comes back, or isn't what it was.

use std::time::Duration;

use tidewaiter_tests::{Place, Server, lines};

fn place() -> (Place, Server) {
    let place = Place::new();
    place.write("tidewaiter.toml", "[sinks]\nout = { type = \"ndjson\", path = \"out.ndjson\" }\n");
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    let server = place.serve();
    assert_eq!(place.run("run --once").code, 0);
    (place, server)
}

fn change(place: &Place, day: u32) {
    place.people(&format!("1,a@{day},2026-03-{day:02}T08:00:00Z,\n"));
    let report = place.run("sync hr account --json").json();
    assert_eq!(report["deltas"], 1, "a sink holds up no run");
}

/// Waits until the file has that many whole lines.
fn delivered(place: &Place, count: usize) -> Vec<serde_json::Value> {
    for _ in 0..6000 {
        let text = std::fs::read_to_string(place.path("out.ndjson")).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return lines(&text);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{count} lines never came");
}

#[test]
fn a_sink_that_fails_holds_up_nothing_and_gets_everything_later() {
    let (place, server) = place();
    change(&place, 2);
    delivered(&place, 1);
    std::fs::remove_file(place.path("out.ndjson")).unwrap();
    std::fs::create_dir(place.path("out.ndjson")).unwrap();
    change(&place, 3);
    server.wait_for("delivery-failed", 0);
    change(&place, 4);
    std::fs::remove_dir(place.path("out.ndjson")).unwrap();
    assert_eq!(delivered(&place, 2), place.changes()[1..]);
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_file_that_was_emptied_or_moved_away_goes_on_with_what_comes_then() {
    let (place, server) = place();
    change(&place, 2);
    delivered(&place, 1);
    // As `logrotate` with `copytruncate` does.
    std::fs::File::options().write(true).open(place.path("out.ndjson")).unwrap().set_len(0).unwrap();
    change(&place, 3);
    assert_eq!(delivered(&place, 1), place.changes()[1..]);
    std::fs::rename(place.path("out.ndjson"), place.path("out.1")).unwrap();
    change(&place, 4);
    assert_eq!(delivered(&place, 1), place.changes()[2..]);
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_a_crash_left_of_a_line_is_mended() {
    let (place, server) = place();
    change(&place, 2);
    let first = delivered(&place, 1);
    server.kill();
    let text = std::fs::read_to_string(place.path("out.ndjson")).unwrap();
    std::fs::write(place.path("out.ndjson"), format!("{text}{}", &text[..text.len() / 2])).unwrap();
    let server = place.serve();
    change(&place, 3);
    assert_eq!(delivered(&place, 2), [first[0].clone(), place.changes()[1].clone()]);
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_file_of_another_journal_is_named_and_added_to() {
    let (place, server) = place();
    change(&place, 2);
    delivered(&place, 1);
    assert_eq!(server.end().0, 0);
    std::fs::remove_dir_all(place.path("data")).unwrap();
    let server = place.serve();
    server.wait_for("is not in this journal", 0);
    assert_eq!(place.run("run --once").code, 0);
    change(&place, 3);
    assert_eq!(delivered(&place, 2)[1], place.changes()[0]);
}

#[test]
fn a_device_is_no_file_to_write_to() {
    let place = Place::new();
    place.people("1,a@x,2026-03-01T08:00:00Z,\n");
    // It has no end, and no last line.
    place.write("tidewaiter.toml", "[sinks]\nout = { type = \"ndjson\", path = \"/dev/zero\" }\n");
    let server = place.serve();
    server.wait_for("/dev/zero: it is no regular file", 0);
    let sinks = place.run("sinks list").stdout;
    assert!(sinks.contains("/dev/zero: it is no regular file"), "{sinks}");
    assert_eq!(place.run("sync hr account").code, 0, "a sink that can't be opened holds up nothing");
    assert_eq!(server.end().0, 0);
}
