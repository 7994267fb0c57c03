//! Nothing lost, nothing repeated: wherever a run is cut, whatever is written between two runs.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::*;
use serde_json::json;
use support::{Folder, uids};
use tidewaiter_connector::{Change, Delta, ErrorKind, SyncToken, Value};

/// Something that happens to the export, or to the host.
#[derive(Debug, Clone)]
enum Step {
    Insert,
    Update(prop::sample::Index),
    MarkDeleted(prop::sample::Index),
    Remove(prop::sample::Index),
    Tick,
    Rewrite,
    /// A run that is cut after so many batches of this size.
    Run {
        batch: u32,
        stop_after: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Insert),
        4 => any::<prop::sample::Index>().prop_map(Step::Update),
        1 => any::<prop::sample::Index>().prop_map(Step::MarkDeleted),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => Just(Step::Tick),
        1 => Just(Step::Rewrite),
        3 => (1..4_u32, 1..5_usize).prop_map(|(batch, stop_after)| Step::Run { batch, stop_after }),
    ]
}

#[derive(Debug, Clone)]
struct Row {
    uid: usize,
    /// Unique: what a row says is never said again.
    version: usize,
    time: usize,
    deleted: bool,
}

#[derive(Default)]
struct Source {
    rows: Vec<Row>,
    uids: usize,
    versions: usize,
    now: usize,
}

impl Source {
    fn change(&mut self, index: prop::sample::Index, deleted: bool) {
        if self.rows.is_empty() {
            return;
        }
        self.versions += 1;
        let (version, time) = (self.versions, self.now);
        let row = index.get_mut(&mut self.rows);
        *row = Row { version, time, deleted, ..row.clone() };
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Insert => {
                self.uids += 1;
                self.versions += 1;
                let (uid, version, time) = (self.uids, self.versions, self.now);
                self.rows.push(Row { uid, version, time, deleted: false });
            }
            Step::Update(index) => self.change(*index, false),
            Step::MarkDeleted(index) => self.change(*index, true),
            Step::Remove(index) if !self.rows.is_empty() => {
                self.rows.remove(index.index(self.rows.len()));
            }
            Step::Remove(_) => {}
            Step::Tick => self.now += 1,
            Step::Rewrite => self.rows.reverse(),
            Step::Run { .. } => {}
        }
    }

    fn csv(&self) -> String {
        let mut text = "id,version,at,gone\n".to_owned();
        for Row { uid, version, time, deleted } in &self.rows {
            let at = format!("2026-03-01 08:00:{time:02}");
            let gone = if *deleted { at.as_str() } else { "" };
            writeln!(text, "{uid},{version},{at},{gone}").unwrap();
        }
        text
    }
}

fn version(delta: &Delta) -> usize {
    let object = match &delta.change {
        Change::CreateOrUpdate(updated) => &updated.object,
        Change::Delete(deleted) => deleted.last_known.as_ref().unwrap(),
        other => panic!("{other:?}"),
    };
    match object.get("version").unwrap() {
        [Value::Text(text)] => text.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The host: what is journaled, and the token.
struct Host<'a> {
    folder: &'a Folder,
    token: Option<SyncToken>,
    journal: BTreeSet<usize>,
}

impl Host<'_> {
    fn run(&mut self, source: &Source, batch: u32, stop_after: usize) {
        self.folder.write("people.csv", source.csv());
        let connection = self.folder.connection(json!({ "deleted_at": "gone" })).batches_of(batch);
        connection.replays_exactly("account", self.token.clone());
        let run = connection.stop_after(stop_after).sync("account", self.token.clone());
        run.outcome.as_ref().unwrap();
        for delta in run.journaled() {
            assert!(self.journal.insert(version(delta)), "repeated: {delta:?}");
        }
        self.token = run.token();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_change_comes_exactly_once(steps in prop::collection::vec(step(), 1..40), from_latest: bool, before in 0..6_usize) {
        let folder = Folder::new();
        let mut source = Source::default();
        (0..before).for_each(|_| source.step(&Step::Insert));
        let mut host = Host { folder: &folder, token: None, journal: BTreeSet::new() };
        let mut known = BTreeSet::new();
        if from_latest {
            folder.write("people.csv", source.csv());
            host.token = folder.connection(json!({})).latest_sync_token("account").unwrap();
            known.extend(source.rows.iter().map(|row| row.version));
        }
        for step in &steps {
            source.step(step);
            if let Step::Run { batch, stop_after } = step {
                host.run(&source, *batch, *stop_after);
            }
        }
        host.run(&source, 256, usize::MAX);
        for row in &source.rows {
            let journaled = host.journal.contains(&row.version);
            prop_assert_eq!(journaled, !known.contains(&row.version), "{:?}", row);
        }
    }
}

/// `count` rows of one time, and then these lines.
fn crowd(count: usize, more: &str) -> String {
    let mut text = "id,at\n".to_owned();
    (0..count).for_each(|id| writeln!(text, "{id},2026-03-01").unwrap());
    text + more
}

#[test]
fn many_rows_of_one_time_replay_from_every_batch() {
    let folder = Folder::of(crowd(9_000, "x,2026-02-28\ny,2026-03-02\n"));
    let run = folder.connection(json!({})).replays_exactly("account", None);
    assert_eq!(run.deltas().len(), 9_002);
    assert!(run.emits.iter().all(|emit| emit.checkpoint.is_some()));
}

#[test]
fn a_late_row_among_many_comes_alone() {
    let folder = Folder::of(crowd(9_000, ""));
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    folder.write("people.csv", crowd(9_000, "late,2026-03-01\n"));
    let run = connection.replays_exactly("account", token);
    assert_eq!(uids(&run), ["late"]);
}

#[test]
fn a_first_edit_after_a_bulk_import_comes_alone() {
    let folder = Folder::of(crowd(9_000, ""));
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    folder.write("people.csv", crowd(8_999, "8999,2026-03-02\n"));
    let run = connection.replays_exactly("account", token);
    assert_eq!(uids(&run), ["8999"]);
}

#[test]
fn growing_past_what_can_be_named_loses_no_row() {
    let folder = Folder::of(crowd(3_999, ""));
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    folder.write("people.csv", crowd(6_000, ""));
    let run = connection.replays_exactly("account", token);
    assert_eq!(run.deltas().len(), 2_001);
}

#[test]
fn a_row_written_later_with_the_same_time_is_seen() {
    let folder = Folder::of("id,at\na,2026-03-01\n");
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    folder.write("people.csv", "id,at\nb,2026-03-01\na,2026-03-01\n");
    assert_eq!(uids(&connection.replays_exactly("account", token)), ["b"]);
}

#[test]
fn the_same_row_in_two_files_is_one_change() {
    let folder = Folder::new();
    folder.write("one.csv", "id,at\na,2026-03-01\nb,2026-03-01\n");
    folder.write("two.csv", "id,at\nb,2026-03-01\nc,2026-03-01\n");
    let run = folder.connection(json!({})).batches_of(1).replays_exactly("account", None);
    assert_eq!(run.deltas().len(), 3);
}

#[test]
fn the_same_uid_in_two_rows_is_two_changes_in_the_order_of_time() {
    let folder = Folder::of("id,at,mail\na,2026-03-02,new\na,2026-03-01,old\n");
    let run = folder.connection(json!({})).replays_exactly("account", None);
    let mails: Vec<_> = run.deltas().iter().map(|delta| support::object(delta).get("mail").unwrap().to_vec()).collect();
    assert_eq!(mails, [[Value::from("old")], [Value::from("new")]]);
}

#[test]
fn an_empty_file_of_rows_has_no_token_and_its_first_row_is_seen() {
    let folder = Folder::of("id,at\n");
    let connection = folder.connection(json!({}));
    assert_eq!(connection.latest_sync_token("account"), Ok(None));
    folder.write("people.csv", "id,at\na,2026-03-01\n");
    assert_eq!(uids(&connection.sync("account", None)), ["a"]);
}

#[test]
fn an_older_file_gives_nothing_and_a_warning() {
    let folder = Folder::of("id,at\na,2026-03-02\n");
    let connection = folder.connection(json!({}));
    let token = connection.latest_sync_token("account").unwrap();
    folder.write("people.csv", "id,at\na,2026-03-01\n");
    let run = connection.sync("account", token.clone());
    assert_eq!((uids(&run), run.token()), (vec![], token));
    assert_eq!(run.log.len(), 1);
}

#[test]
fn a_foreign_token_is_invalid() {
    let folder = Folder::of("id,at\na,2026-03-02\n");
    for token in [SyncToken::from(7), "2026-03-01".into(), b"csv9".to_vec().into()] {
        let run = folder.connection(json!({})).sync("account", Some(token));
        assert_eq!(run.outcome.unwrap_err().kind(), ErrorKind::InvalidSyncToken);
    }
}

#[test]
fn a_long_file_is_read_in_blocks_and_comes_in_order() {
    // 20 MB of rows, newest first: more than a block, and every block needs rows from all over the file.
    let filler = "x".repeat(1000);
    let mut text = "id,at,filler\n".to_owned();
    for id in 0..20_000_u32 {
        let (hour, minute, second) = (id / 3600, id / 60 % 60, id % 60);
        let line = format!("{id},2026-03-01T{hour:02}:{minute:02}:{second:02}Z,{filler}\n");
        text += &line;
    }
    let (header, rows) = text.split_at("id,at,filler\n".len());
    let reversed: String = rows.split_inclusive('\n').rev().collect();
    let folder = Folder::of(header.to_owned() + &reversed);
    let run = folder.sync(json!({}));
    let expected: Vec<String> = (0..20_000).map(|id: u32| id.to_string()).collect();
    assert_eq!(uids(&run), expected);
}
