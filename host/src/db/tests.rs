//! The db as a whole, on real redb files, with a disk that can be told to fail.

mod crash;
mod keeping;
mod kill;
mod shadows;

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ::redb::backends::FileBackend;
use ::redb::{BackendError, Database, ReadableTable, ReadableTableMetadata, StorageBackend};
use tidewaiter_core::dead_letter::DeadLetter;
use tidewaiter_core::journal::{Body, EntryId, Marker};
use tidewaiter_core::object::{Change, ConnectorObject, SyncDelta};
use tidewaiter_core::run::{ConnectorError, ErrorKind, Failure, Outcome, Trigger};
use tidewaiter_core::state::{From, SyncState};
use tidewaiter_core::token::SyncToken;
use tokio::task::JoinSet;

use super::redb::{RedbStore, builder};
use super::tables::{FORMAT, INDEX, META, SEGMENTS, STATES};
use super::writer::write_group;
use super::*;

fn key(object_type: &str) -> TypeKey {
    TypeKey { connection: "hr".parse().unwrap(), object_type: object_type.parse().unwrap() }
}

fn packed(count: usize) -> Packed {
    pack(&deltas(count)).unwrap()
}

fn deltas(count: usize) -> Vec<SyncDelta> {
    let delta = |i| {
        let change = Change::Delete { uid: format!("uid-{i}"), name: None, last_known: None };
        SyncDelta { object_class: "account".into(), change, source_time: None }
    };
    (0..count).map(delta).collect()
}

/// The n-th commit of a type, with a token of the same number, within a run.
fn commit(object_type: &str, revision: u64, count: usize) -> Commit {
    let sync = SyncState::Live(SyncToken::Integer(revision.cast_signed()));
    Commit {
        key: key(object_type),
        expected_revision: revision - 1,
        state: TypeState { sync, revision, generation: 2, ..TypeState::first(From::Latest, UnixMillis(5)) },
        staged: vec![],
        batches: vec![packed(count)],
        letters: Letters::default(),
        marker: None,
        run: Some(1),
        report: None,
        at: UnixMillis(10),
    }
}

/// The same, as the only commit of a run.
fn whole_run(object_type: &str, revision: u64, run: u64) -> Commit {
    let failure = Failure::Connector(ConnectorError {
        kind: ErrorKind::TimedOut,
        message: "late".into(),
        retry_after_ms: Some(3),
    });
    let report = RunReport {
        run,
        key: key(object_type),
        trigger: Trigger::Schedule,
        started: UnixMillis(1),
        ended: UnixMillis(2),
        token_in: None,
        token_out: Some(SyncToken::Binary(vec![0, 255])),
        deltas: 0,
        dead_letters: 0,
        dropped: 0,
        bytes: 0,
        retries: 1,
        spent: tidewaiter_core::run::Spent::default(),
        outcome: Outcome::Failed(failure),
    };
    Commit { run: Some(run), report: Some(report), ..commit(object_type, revision, 0) }
}

fn open(dir: &Path) -> Db {
    Db::open(dir, "a test", Duration::ZERO).unwrap()
}

fn file(dir: &Path) -> PathBuf {
    dir.join("tidewaiter.redb")
}

fn sequences(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.id.sequence).collect()
}

fn runs(reports: &[RunReport]) -> Vec<u64> {
    reports.iter().map(|report| report.run).collect()
}

#[tokio::test]
async fn reads_back_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let marker = Some((Marker::TokenSet, Actor::Uid(1000)));
    let written = Commit { marker, ..commit("employee", 1, 2) };
    assert_eq!(db.commit(written.clone()).await.unwrap(), Committed { first: 1, last: 3 });
    assert_eq!(db.state(&key("employee")).unwrap().as_ref(), Some(&written.state));
    assert_eq!(db.states().unwrap(), BTreeMap::from([(key("employee"), written.state.clone())]));
    let entries = db.entries(0, 10).unwrap();
    assert_eq!(sequences(&entries), [1, 2, 3]);
    assert_eq!(entries[0].body, Body::Marker { marker: Marker::TokenSet, by: Actor::Uid(1000) });
    assert_eq!(entries[2].body, Body::Delta(deltas(2).remove(1)));
    let (last, incarnation) = (&entries[2], db.incarnation());
    assert_eq!((last.id.incarnation, last.generation, last.run, last.at), (incarnation, 2, Some(1), UnixMillis(10)));
    assert_eq!(last.key, key("employee"));
    assert_eq!((db.last_sequence(), *db.watch().borrow()), (3, 3));
    assert_eq!((db.state(&key("other")).unwrap(), db.entries(3, 10).unwrap()), (None, vec![]));
    assert_eq!(db.entries(u64::MAX, 1).unwrap(), []);
}

#[tokio::test]
async fn keeps_everything_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for revision in 1..=20 {
        db.commit(commit("employee", revision, 3)).await.unwrap();
    }
    db.commit(whole_run("employee", 21, 40)).await.unwrap();
    db.delivered("ndjson", Delivered::upto(17, UnixMillis(1))).await.unwrap();
    let incarnation = db.incarnation();
    drop(db);
    let db = open(dir.path());
    assert_eq!((db.incarnation(), db.last_sequence(), db.last_run()), (incarnation, 60, 40));
    assert_eq!((db.sink_position("ndjson").unwrap(), db.sink_position("other").unwrap()), (17, 0));
    assert_eq!(db.commit(commit("employee", 22, 1)).await.unwrap(), Committed { first: 61, last: 61 });
    assert_eq!(sequences(&db.entries(0, 1000).unwrap()), (1..=61).collect::<Vec<_>>());
    for after in 0..61 {
        let expected: Vec<u64> = (after + 1..=61).take(4).collect();
        assert_eq!(sequences(&db.entries(after, 4).unwrap()), expected);
    }
}

#[tokio::test]
async fn a_commit_that_expects_another_revision_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.commit(commit("employee", 1, 1)).await.unwrap();
    for revision in [1, 3] {
        assert_eq!(db.commit(commit("employee", revision, 5)).await.unwrap_err(), CommitError::Conflict);
    }
    assert_eq!((db.last_sequence(), db.state(&key("employee")).unwrap().unwrap().revision), (1, 1));
    assert_eq!(db.commit(commit("employee", 2, 1)).await.unwrap(), Committed { first: 2, last: 2 });
}

#[tokio::test]
async fn a_large_commit_is_several_segments_and_reads_from_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let large = Commit { batches: vec![packed(30_000), packed(0), packed(30_000)], ..commit("employee", 1, 0) };
    assert_eq!(db.commit(large).await.unwrap(), Committed { first: 1, last: 60_000 });
    db.commit(commit("employee", 2, 1)).await.unwrap();
    let entries = db.entries(44_444, 3).unwrap();
    assert_eq!(sequences(&entries), [44_445, 44_446, 44_447]);
    assert_eq!(entries[0].body, Body::Delta(deltas(14_445).remove(14_444)));
    assert_eq!(sequences(&db.entries(59_999, 9).unwrap()), [60_000, 60_001]);
    drop(db);
    assert!(raw(dir.path(), |txn| txn.open_table(SEGMENTS).unwrap().len().unwrap()) > 3);
}

#[tokio::test]
async fn a_page_of_large_entries_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let uid = "x".repeat(900_000);
    let change = Change::Delete { uid, name: None, last_known: None };
    let delta = SyncDelta { object_class: "account".into(), change, source_time: None };
    db.commit(Commit { batches: vec![pack(&vec![delta; 12]).unwrap()], ..commit("employee", 1, 0) }).await.unwrap();
    assert_eq!(sequences(&db.entries(0, 100).unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(sequences(&db.entries(5, 100).unwrap()), [6, 7, 8, 9, 10]);
    assert_eq!(sequences(&db.entries(10, 100).unwrap()), [11, 12]);
}

#[tokio::test]
async fn keeps_the_newest_thousand_reports_and_token_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    disk.skip_flush.store(true, Ordering::Relaxed);
    let db = started(store);
    db.commit(whole_run("other", 1, 1)).await.unwrap();
    for revision in 1..=1003 {
        db.commit(whole_run("employee", revision, revision + 1)).await.unwrap();
    }
    let reports = db.runs(Some(&key("employee")), 2000).unwrap();
    assert_eq!(runs(&reports), (5..=1004).rev().collect::<Vec<_>>());
    assert_eq!(reports[0], whole_run("employee", 1, 1004).report.unwrap());
    let history = db.token_history(&key("employee"), 2000).unwrap();
    let revisions: Vec<u64> = history.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, (4..=1003).rev().collect::<Vec<_>>());
    let newest = TokenChange::new(&whole_run("employee", 1003, 1004).state, Some(1004), UnixMillis(10));
    assert_eq!(history[0], newest);
    assert_eq!(db.runs(None, 2000).unwrap().len(), 1001, "the runs of another type stay");
    assert_eq!(runs(&db.runs(None, 2).unwrap()), [1004, 1003]);
    assert_eq!(runs(&db.runs(Some(&key("other")), 2).unwrap()), [1]);
}

#[tokio::test]
async fn checkpoints_within_a_run_are_not_token_history() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.commit(commit("employee", 1, 0)).await.unwrap();
    db.commit(commit("employee", 2, 1)).await.unwrap();
    db.commit(whole_run("employee", 3, 7)).await.unwrap();
    db.commit(Commit { marker: Some((Marker::TokenReset, Actor::Api)), run: None, ..commit("employee", 4, 0) })
        .await
        .unwrap();
    let mut lost = commit("employee", 5, 0);
    lost.state.sync = SyncState::TokenLost { token: None, reason: "trimmed".into(), by_source: true };
    db.commit(lost).await.unwrap();
    let rows = db.token_history(&key("employee"), 10).unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.revision, row.state.as_str(), row.run)).collect();
    let live = "live";
    assert_eq!(rows, [(5, "token-lost", Some(1)), (4, live, None), (3, live, Some(7)), (1, live, Some(1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_flushes_and_get_one_gap_free_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    let db = started(store);
    let before = disk.flushes.load(Ordering::Relaxed);
    let mut writers = JoinSet::new();
    for object_type in 0..50 {
        let db = db.clone();
        writers.spawn(async move {
            for revision in 1..=10 {
                db.commit(commit(&format!("t{object_type}"), revision, 2)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let flushes = disk.flushes.load(Ordering::Relaxed) - before;
    assert!(flushes < 250, "{flushes} flushes for 500 commits");
    let entries = db.entries(0, 5000).unwrap();
    assert_eq!(sequences(&entries), (1..=1000).collect::<Vec<_>>());
    assert_eq!(db.states().unwrap().len(), 50);
}

#[tokio::test]
async fn a_group_writes_its_valid_members_and_refuses_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    let durable = Durable::new(store.counters().unwrap());
    let mut group = Vec::new();
    for (object_type, revision, count) in [("a", 1, 2), ("b", 5, 2), ("a", 2, 1), ("a", 2, 9), ("c", 1, 1)] {
        group.push(Write::Commit(Box::new(
            prepare(commit(object_type, revision, count), &Keys::default()).await.unwrap(),
        )));
    }
    let before = disk.flushes.load(Ordering::Relaxed);
    let answers = write_group(&store, &durable, &group);
    let (written, refused) = (|first, last| Ok(Done::Committed(Committed { first, last })), Err(CommitError::Conflict));
    assert_eq!(answers, [written(1, 2), refused.clone(), written(3, 3), refused.clone(), written(4, 4)]);
    assert_eq!((durable.sequence(), durable.run()), (4, 1));
    assert_eq!(disk.flushes.load(Ordering::Relaxed) - before, 1, "one flush for the group");
    let answers = write_group(&store, &durable, &group[1..2]);
    assert_eq!((answers, write_group(&store, &durable, &[])), (vec![refused], vec![]));
    assert_eq!(disk.flushes.load(Ordering::Relaxed) - before, 1, "nothing to write, nothing flushed");
}

/// Promise 2: durable before visible.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    let db = started(store);
    let mut watch = db.watch();
    disk.hold_flush(true);
    let mut writing = JoinSet::new();
    writing.spawn({
        let db = db.clone();
        async move { db.commit(commit("employee", 1, 3)).await }
    });
    tokio::task::spawn_blocking({
        let disk = Arc::clone(&disk);
        move || disk.wait_until_held()
    })
    .await
    .unwrap();
    assert_eq!((db.last_sequence(), watch.has_changed().unwrap()), (0, false));
    let stored = (db.state(&key("employee")).unwrap(), db.inner.store.counters().unwrap().sequence);
    assert_eq!(stored, (None, 0), "not even to a reader of the tables");
    assert!(writing.try_join_next().is_none());
    disk.hold_flush(false);
    assert_eq!(writing.join_next().await.unwrap().unwrap(), Ok(Committed { first: 1, last: 3 }));
    assert_eq!(*watch.wait_for(|last| *last > 0).await.unwrap(), 3);
}

#[tokio::test]
async fn writes_again_when_the_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    let db = started(store);
    db.commit(commit("employee", 1, 1)).await.unwrap();
    disk.full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let refused = db.commit(commit("employee", 2, 1)).await.unwrap_err();
        assert!(matches!(refused, CommitError::Storage(_)), "{refused}");
    }
    disk.full.store(false, Ordering::Relaxed);
    assert_eq!((db.last_sequence(), db.state(&key("employee")).unwrap().unwrap().revision), (1, 1));
    assert_eq!(db.commit(commit("employee", 2, 1)).await.unwrap(), Committed { first: 2, last: 2 });
    assert_eq!(sequences(&db.entries(0, 9).unwrap()), [1, 2]);
}

/// A flush that fails may have reached the disk or not; the db must go on from whatever is there.
#[tokio::test]
async fn a_failed_flush_leaves_all_of_a_commit_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = on_disk(dir.path());
    let db = started(store);
    db.commit(commit("employee", 1, 1)).await.unwrap();
    disk.fail_flush.store(true, Ordering::Relaxed);
    let refused = db.commit(commit("employee", 2, 4)).await.unwrap_err();
    assert!(matches!(refused, CommitError::Storage(_)), "{refused}");
    disk.fail_flush.store(false, Ordering::Relaxed);
    let revision = db.state(&key("employee")).unwrap().unwrap().revision;
    let last = db.inner.store.counters().unwrap().sequence;
    assert!([(1, 1), (2, 5)].contains(&(revision, last)), "{revision} {last}");
    db.commit(commit("employee", revision + 1, 1)).await.unwrap();
    assert_eq!(sequences(&db.entries(0, 99).unwrap()), (1..=last + 1).collect::<Vec<_>>());
    assert_eq!(db.last_sequence(), last + 1);
}

#[tokio::test]
async fn a_file_that_was_overwritten_costs_errors_and_no_thread() {
    for at in [0, 9, 64, 4096, 8192, 64 * 1024] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        for revision in 1..=3 {
            db.commit(commit("employee", revision, 1000)).await.unwrap();
        }
        drop(db);
        let mut bytes = std::fs::read(file(dir.path())).unwrap();
        let end = bytes.len().min(at + 32 * 1024);
        bytes[at..end].fill(0xa5);
        std::fs::write(file(dir.path()), bytes).unwrap();
        let Ok(db) = Db::open(dir.path(), "a test", Duration::ZERO) else { continue };
        let read = db.state(&key("employee")).is_ok() && db.entries(0, 5000).is_ok();
        let written = db.commit(commit("employee", 4, 1000)).await;
        assert!(!read || written.is_err() || db.entries(3000, 5000).is_ok(), "at {at}");
    }
}

#[tokio::test]
async fn a_dropped_db_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let mut commits: Vec<_> = (0..5).map(|i| Box::pin(db.commit(commit(&format!("t{i}"), 1, 1)))).collect();
    for commit in &mut commits {
        // Polled once: queued, and nobody waits for the answer.
        assert!(futures_util::poll!(commit).is_pending());
    }
    drop(commits);
    drop(db);
    assert_eq!(open(dir.path()).last_sequence(), 5);
}

#[tokio::test]
async fn the_second_opener_is_told_who_owns_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let db = Db::open(&data, "tidewaiter serve", Duration::ZERO).unwrap();
    let clone = db.clone();
    drop(db);
    let refused = Db::open(&data, "another", Duration::from_millis(50)).unwrap_err();
    let expected = format!("{} is in use by process {} (tidewaiter serve)", data.display(), std::process::id());
    assert_eq!(refused.to_string(), expected);
    drop(clone);
    let _db = open(&data);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&file(&data)), mode(&data.join("tidewaiter.lock"))), (0o700, 0o600, 0o600));
}

#[test]
fn refuses_a_newer_format_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    raw(dir.path(), |txn| txn.open_table(META).unwrap().insert(FORMAT, 9).map(drop).unwrap());
    let refused = Db::open(dir.path(), "a test", Duration::ZERO).unwrap_err().to_string();
    let expected =
        format!("the db in {} has format 9; this tidewaiter reads up to 8: use a newer one", dir.path().display());
    assert_eq!(refused, expected);
}

#[test]
fn leaves_files_alone_that_are_not_its_own() {
    let text = b"dear diary ".repeat(1000);
    for content in [&b""[..], &b"x"[..], &text] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(file(dir.path()), content).unwrap();
        let refused = Db::open(dir.path(), "a test", Duration::ZERO).unwrap_err();
        assert!(matches!(refused, OpenError::Unusable { .. }), "{refused}");
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), content);
    }
    let dir = tempfile::tempdir().unwrap();
    drop(Database::create(file(dir.path())).unwrap());
    let refused = Db::open(dir.path(), "a test", Duration::ZERO).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[test]
fn a_creation_that_was_interrupted_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidewaiter.redb.new"), "half").unwrap();
    assert_eq!(open(dir.path()).last_sequence(), 0);
    assert!(!dir.path().join("tidewaiter.redb.new").exists());
}

#[tokio::test]
async fn reports_damaged_and_missing_segments_and_rows() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for revision in 1..=3 {
        db.commit(commit("employee", revision, 10)).await.unwrap();
    }
    drop(db);
    raw(dir.path(), |txn| {
        let mut segments = txn.open_table(SEGMENTS).unwrap();
        let mut bytes = segments.get(2).unwrap().unwrap().value().to_vec();
        bytes[60] ^= 1;
        segments.insert(2, bytes.as_slice()).unwrap();
        txn.open_table(STATES).unwrap().insert(("hr", "employee"), &b"{"[..]).unwrap();
    });
    let db = open(dir.path());
    let problem = "the journal's segment that begins with sequence 11 can't be read: its checksum doesn't match";
    assert_eq!(db.entries(0, 30).unwrap_err().to_string(), problem);
    assert_eq!(db.entries(15, 30).unwrap_err().to_string(), problem);
    assert_eq!(sequences(&db.entries(0, 10).unwrap()).len(), 10, "what comes before can be read");
    assert_eq!(sequences(&db.entries(20, 30).unwrap()).len(), 10, "and what comes after");
    let problem = db.state(&key("employee")).unwrap_err().to_string();
    assert!(problem.starts_with("the state of hr/employee can't be read: EOF"), "{problem}");
    assert!(db.states().is_err());
    drop(db);
    raw(dir.path(), |txn| txn.open_table(SEGMENTS).unwrap().remove(2).map(drop).unwrap());
    let problem = |after| open(dir.path()).entries(after, 30).unwrap_err().to_string();
    assert_eq!(problem(0), "the journal has no entries 11 to 20");
    raw(dir.path(), |txn| txn.open_table(INDEX).unwrap().remove(11).map(drop).unwrap());
    assert_eq!(problem(0), "the journal has no entries 11 to 20");
    assert_eq!(problem(13), "the journal has no entries 14 to 20");
    raw(dir.path(), |txn| txn.open_table(INDEX).unwrap().remove(21).map(drop).unwrap());
    assert_eq!(problem(0), "the journal has no entries 11 to 30");
}

/// Changes the file behind the db's back.
fn raw<T>(dir: &Path, change: impl FnOnce(&::redb::WriteTransaction) -> T) -> T {
    let database = Database::open(file(dir)).unwrap();
    let txn = database.begin_write().unwrap();
    let result = change(&txn);
    txn.commit().unwrap();
    result
}

/// A disk that counts its flushes and can be told to hold, skip or fail them, or to be full.
#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
    skip_flush: AtomicBool,
    fail_flush: AtomicBool,
    flushes: AtomicUsize,
    /// Whether flushes are held, and how many are waiting.
    held: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Disk {
    fn hold_flush(&self, hold: bool) {
        self.held.lock().unwrap().0 = hold;
        self.changed.notify_all();
    }

    fn wait_until_held(&self) {
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |(_, waiting)| *waiting == 0).unwrap());
    }

    fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held.lock().unwrap();
        held.1 += 1;
        self.changed.notify_all();
        held = self.changed.wait_while(held, |(hold, _)| *hold).unwrap();
        held.1 -= 1;
    }
}

#[derive(Debug)]
struct DiskFile {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl DiskFile {
    fn room(&self) -> std::io::Result<()> {
        match self.disk.full.load(Ordering::Relaxed) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.disk.flush();
        if self.disk.fail_flush.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the flush failed"));
        }
        match self.disk.skip_flush.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: std::ops::Bound<u64>, end: std::ops::Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}

fn on_disk(dir: &Path) -> (RedbStore, Arc<Disk>) {
    let path = file(dir);
    migrate::create(dir, &path).unwrap();
    let disk = Arc::new(Disk::default());
    let opener = {
        let disk = Arc::clone(&disk);
        move || {
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            builder().create_with_backend(DiskFile { file: FileBackend::new(file)?, disk: Arc::clone(&disk) })
        }
    };
    let database = opener().unwrap();
    (RedbStore::new(Box::new(opener), None, database, Arc::default()), disk)
}

fn started(store: RedbStore) -> Db {
    let counters = store.counters().unwrap();
    Db::on(Arc::new(store), counters, Incarnation(1), Arc::default(), None).unwrap()
}
