//! Shadows: they follow the journal, whoever writes it, and what is erased is known no more.

use tidewaiter_core::object::{Attribute, Value, ValueMode};
use tidewaiter_core::shadow::Form;

use super::keeping::{fits, policy};
use super::*;
use crate::db::{Shadow, ShadowHold, pack_read};

fn object(uid: &str, mail: &str, mode: ValueMode) -> ConnectorObject {
    let attributes = vec![Attribute { name: "mail".into(), values: vec![Value::Text(mail.into())], mode }];
    ConnectorObject { uid: uid.into(), name: uid.into(), attributes }
}

fn delta(change: Change) -> SyncDelta {
    SyncDelta { object_class: "account".into(), change, source_time: None }
}

fn is(uid: &str, mail: &str) -> SyncDelta {
    delta(Change::CreateOrUpdate { object: object(uid, mail, ValueMode::Whole), previous_uid: None })
}

fn gone(uid: &str) -> SyncDelta {
    delta(Change::Delete { uid: uid.into(), name: None, last_known: None })
}

async fn journal(db: &Db, object_type: &str, deltas: &[SyncDelta]) {
    let revision = db.state(&key(object_type)).unwrap().map_or(1, |state| state.revision + 1);
    let batches = vec![pack(deltas).unwrap()];
    db.commit(Commit { batches, ..commit(object_type, revision, 0) }).await.unwrap();
}

type Rows = Vec<(String, Option<u128>)>;

fn rows(db: &Db, shadow: &Shadow) -> Rows {
    let mut rows = Vec::new();
    let all = db.scan_shadow(shadow, 0, &mut |hash, uid| {
        rows.push((uid.reveal()?, hash));
        Ok(true)
    });
    assert_eq!(all.unwrap(), None);
    rows.sort();
    rows
}

/// Answers it, and how much was said since.
async fn brought_up(hold: &ShadowHold) -> (Shadow, usize) {
    let said = AtomicUsize::new(0);
    let count = |_| {
        said.fetch_add(1, Ordering::Relaxed);
    };
    let shadow = hold.bring_up(count).await.unwrap();
    (shadow, said.into_inner())
}

fn uids(rows: &Rows) -> Vec<&str> {
    rows.iter().map(|(uid, _)| uid.as_str()).collect()
}

#[tokio::test]
async fn a_shadow_says_what_the_journal_last_said() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    journal(&db, "employee", &[is("a", "1"), is("b", "1"), is("c", "1")]).await;
    journal(&db, "other", &[is("x", "1")]).await;
    let hold = db.hold_shadow(&key("employee")).unwrap();
    assert!(db.hold_shadow(&key("employee")).is_none(), "one at a time");
    hold.open(Form::default()).await.unwrap();
    let (shadow, said) = brought_up(&hold).await;
    let before = rows(&db, &shadow);
    assert_eq!((uids(&before), said, shadow.rows()), (vec!["a", "b", "c"], 3, 3));
    assert_eq!(before[0].1, shadow.digester().hash(&object("a", "1", ValueMode::Whole)));
    // A change, an end, a rename, part of an object, and one that was read.
    let renamed = Change::Update { object: object("d", "1", ValueMode::Whole), previous_uid: Some("c".into()) };
    journal(&db, "employee", &[is("a", "2"), gone("b"), delta(renamed)]).await;
    let part = Change::CreateOrUpdate { object: object("e", "1", ValueMode::Part), previous_uid: None };
    let read = pack_read(&[is("f", "1")]).unwrap();
    let batches = vec![pack(&[delta(part)]).unwrap(), read];
    db.commit(Commit { batches, ..commit("employee", 3, 0) }).await.unwrap();
    let (shadow, said) = brought_up(&hold).await;
    let after = rows(&db, &shadow);
    assert_eq!((uids(&after), said), (vec!["a", "d", "e", "f"], 6));
    let knows: Vec<bool> = after.iter().map(|(_, hash)| hash.is_some()).collect();
    assert_eq!(knows, [true, true, false, true]);
    assert_eq!(
        (after[1].1, after[3].1),
        (
            shadow.digester().hash(&object("d", "1", ValueMode::Whole)),
            shadow.digester().hash(&object("f", "1", ValueMode::Whole))
        )
    );
    fits(&db);
    drop(hold);
    assert!(db.hold_shadow(&key("employee")).is_some());
}

#[tokio::test]
async fn entries_stay_until_every_shadow_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let hold = db.hold_shadow(&key("employee")).unwrap();
    hold.open(Form::default()).await.unwrap();
    journal(&db, "employee", &[is("a", "1")]).await;
    journal(&db, "other", &[is("x", "1"), is("y", "1")]).await;
    db.delivered("file", Delivered::upto(3, UnixMillis(1))).await.unwrap();
    let dropped = db.retain(policy(Some(0), &["file"]), UnixMillis(i64::MAX)).await.unwrap();
    assert_eq!(dropped.entries, 0);
    let (shadow, _) = brought_up(&hold).await;
    assert_eq!((shadow.position(), shadow.rows()), (3, 1));
    hold.settle().await.unwrap();
    let dropped = db.retain(policy(Some(0), &["file"]), UnixMillis(i64::MAX)).await.unwrap();
    assert_eq!(dropped.entries, 3);
    journal(&db, "employee", &[is("b", "1")]).await;
    assert_eq!(brought_up(&hold).await.0.rows(), 2);
    fits(&db);
}

#[tokio::test]
async fn what_is_forgotten_is_in_no_shadow_and_no_uid_is_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::default().with_current(&[7; 32]);
    let db = Db::open_sealed(dir.path(), "a test", Duration::ZERO, keys.clone()).unwrap();
    journal(&db, "employee", &[is("uid-of-jane", "1"), is("uid-of-joe", "1")]).await;
    let hold = db.hold_shadow(&key("employee")).unwrap();
    hold.open(Form::default()).await.unwrap();
    brought_up(&hold).await;
    db.forget(&key("employee").connection, "uid-of-jane").await.unwrap();
    let shadow = db.shadow(&key("employee")).unwrap().unwrap();
    assert_eq!((uids(&rows(&db, &shadow)), shadow.rows()), (vec!["uid-of-joe"], 1));
    let copy = dir.path().join("copy");
    db.backup(&copy).unwrap();
    for path in [copy, file(dir.path())] {
        let bytes = std::fs::read(path).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"uid-of-"));
    }
    // Another key means one row to write.
    drop((hold, db));
    let keys = Keys::default().with_old(&[7; 32]).with_current(&[8; 32]);
    let db = Db::open_sealed(dir.path(), "a test", Duration::ZERO, keys).unwrap();
    db.rekey().await.unwrap();
    drop(db);
    let db = Db::open_sealed(dir.path(), "a test", Duration::ZERO, Keys::default().with_current(&[8; 32])).unwrap();
    let shadow = db.shadow(&key("employee")).unwrap().unwrap();
    assert_eq!(uids(&rows(&db, &shadow)), ["uid-of-joe"]);
}

#[tokio::test]
async fn much_is_brought_up_in_parts_and_a_form_that_changed_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let many: Vec<SyncDelta> = (0..120_000).map(|n| is(&n.to_string(), "1")).collect();
    journal(&db, "employee", &many).await;
    let hold = db.hold_shadow(&key("employee")).unwrap();
    let opened = hold.open(Form::default()).await.unwrap();
    assert_eq!((opened.rows(), opened.position()), (0, 0));
    let (shadow, _) = brought_up(&hold).await;
    assert_eq!((shadow.rows(), shadow.position()), (120_000, 120_000));
    assert_eq!(rows(&db, &shadow).len(), 120_000);
    let other = Form { volatile: ["mail".to_owned()].into(), ..Form::default() };
    let reopened = hold.open(other).await.unwrap();
    assert_eq!(reopened.rows(), 120_000, "rows stay");
    let (one, two) = (object("a", "1", ValueMode::Whole), object("a", "2", ValueMode::Whole));
    assert_eq!(reopened.digester().hash(&one), reopened.digester().hash(&two));
    assert_eq!(reopened.digester().key("a"), shadow.digester().key("a"));
    hold.complete(Some(3), UnixMillis(9)).await.unwrap();
    let complete = db.shadow(&key("employee")).unwrap().unwrap();
    assert_eq!((complete.complete_at(), complete.complete_generation()), (Some(UnixMillis(9)), Some(3)));
    fits(&db);
}
