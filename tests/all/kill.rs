//! SIGKILL at seeded instants, again and again on the same data: at the end each change is in the journal once, in order, and the
//! sink has each at least once, in order.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tidewaiter_tests::{HR, Place, is_quick, lines, rows};

/// Rows that each round adds, in a file of its own.
const ROWS: u32 = 3000;

fn uids(entries: &[Value]) -> Vec<u32> {
    entries.iter().map(|entry| entry["uid"].as_str().unwrap().parse().unwrap()).collect()
}

/// Kills on the same data.
const ROUNDS: u32 = 100;

#[expect(clippy::disallowed_methods, reason = "how xtask says how long a test may take")]
fn kills() -> u32 {
    let asked = std::env::var("TIDEWAITER_TEST_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if is_quick() { 6 } else { ROUNDS })
}

#[test]
fn a_kill_at_any_instant_loses_nothing_and_repeats_nothing_in_the_journal() {
    let kills = kills();
    for first in (0..kills).step_by(ROUNDS as usize) {
        kill_again_and_again(first, ROUNDS.min(kills - first));
    }
}

fn kill_again_and_again(seed: u32, rounds: u32) {
    let place = Place::new();
    place.write("tidewaiter.toml", "[sinks]\nout = { type = \"ndjson\", path = \"out.ndjson\" }\n");
    place.write("connections/hr.toml", &format!("{HR}every = \"100ms\"\nfrom = \"beginning\"\n"));
    let mut seeded = Rng::with_seed(20_261_124 + u64::from(seed));
    let mut in_the_middle = 0;
    for round in 0..rounds {
        let added = rows(round * ROWS + 1..=(round + 1) * ROWS, 2026);
        place.write(&format!("people/{round:03}.csv"), &format!("id,mail,updated_at,deleted_at\n{added}"));
        let server = place.start();
        // Also before it serves: while it opens the db, or mends the sink's file.
        if round % 4 > 0 {
            server.wait_for("sync called", 0);
        }
        std::thread::sleep(Duration::from_millis(seeded.u64(..if round % 4 > 0 { 80 } else { 400 })));
        server.kill();
        let delivered = std::fs::read(place.path("out.ndjson")).unwrap_or_default();
        let lines = delivered.iter().filter(|byte| **byte == b'\n').count();
        in_the_middle += u32::from(!lines.is_multiple_of(ROWS as usize));
    }
    let server = place.start();
    server.wait_for("outcome=\"ok\"", 0);
    assert_eq!(server.end().0, 0);

    let all: Vec<u32> = (1..=rounds * ROWS).collect();
    let journal = place.changes();
    assert!(uids(&journal) == all, "the journal lost, repeated or moved something");
    let sequences = journal.iter().map(|entry| entry["sequence"].as_u64().unwrap());
    assert!(sequences.eq(1..=u64::from(rounds * ROWS)), "the sequence has a gap");
    let sink = lines(&std::fs::read_to_string(place.path("out.ndjson")).unwrap());
    let mut delivered = uids(&sink);
    delivered.dedup();
    assert!(delivered == all, "the sink lost or moved something");
    assert!(is_quick() || in_the_middle >= 5, "only {in_the_middle} kills came in the middle of a change");
}
