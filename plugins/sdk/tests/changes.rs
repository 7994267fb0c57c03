//! What `Changes` hands over, and where it puts checkpoints. A small scripted connector stands for the author's code.
#![allow(clippy::unwrap_used, missing_docs)]

use serde::Deserialize;
use serde_json::json;
use tidewaiter_connector::testing::{Connection, Run};
use tidewaiter_connector::{
    Changes, Connector, Context, Delta, Error, ErrorKind, Info, Object, ObjectClass, SyncOptions, SyncToken, Value,
};

/// One step of what `sync` does.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Push(String),
    Big(String),
    Checkpoint(i64),
    Flush,
    At(i64, String),
    Fail,
    Return(i64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    steps: Vec<Step>,
    #[serde(default)]
    depth: Depth,
}

#[derive(Deserialize, Default)]
struct Depth {
    #[serde(default)]
    metres: u8,
}

struct Scripted(Script);
tidewaiter_connector::export!(Scripted);

fn delta(uid: &str) -> Delta {
    Delta::upsert("account", Object::new(uid, uid).with("mail", "a@b"))
}

impl Connector for Scripted {
    type Settings = Script;

    fn describe() -> Info {
        Info::new("scripted", "1.0.0")
    }

    fn new(script: Script) -> Result<Self, Error> {
        assert_eq!(script.depth.metres, 0);
        Ok(Self(script))
    }

    fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
        Ok(vec![ObjectClass::new("account")])
    }

    fn sync(
        &self,
        _class: &str,
        _token: Option<SyncToken>,
        _options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        if self.0.steps.iter().any(|step| matches!(step, Step::At(..))) {
            let mut ordered = changes.ordered(|at: &i64| (*at).into());
            for step in &self.0.steps {
                if let Step::At(at, uid) = step {
                    ordered.push(*at, delta(uid))?;
                }
            }
            return Ok(ordered.finish());
        }
        for step in &self.0.steps {
            match step {
                Step::Push(uid) => changes.push(delta(uid))?,
                Step::Big(uid) => {
                    let value = Value::Binary(vec![0; 600 << 10]);
                    changes.push(Delta::upsert("account", Object::new(uid, "").with("photo", value)))?;
                }
                Step::Checkpoint(token) => changes.checkpoint(*token)?,
                Step::Flush => changes.flush()?,
                Step::Fail => {
                    return Err(Error::retryable("the source went away")).context("reading");
                }
                Step::Return(token) => return Ok(Some((*token).into())),
                Step::At(..) => unreachable!(),
            }
        }
        Ok(None)
    }
}

fn connection(steps: serde_json::Value) -> Connection<Scripted> {
    Connection::new(json!({ "steps": steps }))
}

/// `a,b@2` is a batch of two with the checkpoint 2.
fn shape(run: &Run) -> Vec<String> {
    let batch = |emit: &tidewaiter_connector::testing::Emit| {
        let uids: Vec<_> = emit.deltas.iter().map(Delta::uid).collect();
        let token = emit.checkpoint.as_ref().map(|token| format!("@{}", token.as_integer().unwrap()));
        uids.join(",") + &token.unwrap_or_default()
    };
    run.emits.iter().map(batch).collect()
}

fn push(uid: &str) -> serde_json::Value {
    json!({ "push": uid })
}

fn checkpoint(token: i64) -> serde_json::Value {
    json!({ "checkpoint": token })
}

#[test]
fn consecutive_checkpoints_share_a_batch() {
    let steps = json!([push("a"), checkpoint(1), push("b"), checkpoint(2), push("c"), checkpoint(3)]);
    let run = connection(steps).sync("account", None);
    assert_eq!(shape(&run), ["a,b,c@3"]);
    assert_eq!(run.outcome, Ok(None));
}

#[test]
fn a_full_batch_is_cut_at_its_last_checkpoint() {
    let steps = json!([push("a"), checkpoint(1), push("b"), push("c"), push("d"), checkpoint(4)]);
    let run = connection(steps).batches_of(2).sync("account", None);
    assert_eq!(shape(&run), ["a@1", "b,c", "d@4"]);
}

#[test]
fn a_batch_stays_within_its_bytes() {
    let steps = json!([{"big": "a"}, {"big": "b"}, checkpoint(1)]);
    let run = connection(steps).sync("account", None);
    assert_eq!(shape(&run), ["a", "b@1"]);
}

#[test]
fn the_returned_token_covers_the_rest() {
    let steps = json!([push("a"), checkpoint(1), push("b"), {"return": 2}]);
    let run = connection(steps).sync("account", None);
    assert_eq!(shape(&run), ["a,b@2"]);
    assert_eq!(run.token(), Some(2.into()));
}

#[test]
fn a_checkpoint_without_deltas_is_handed_over() {
    let run = connection(json!([checkpoint(7)])).sync("account", None);
    assert_eq!(shape(&run), ["@7"]);
}

#[test]
fn a_failure_keeps_what_was_checkpointed_before_it() {
    let steps = json!([push("a"), checkpoint(1), push("b"), "fail"]);
    let run = connection(steps).sync("account", None);
    assert_eq!(shape(&run), ["a@1"]);
    let error = run.outcome.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Retryable, "reading: the source went away"));
}

#[test]
fn stop_ends_the_call_without_an_error() {
    let steps = json!([push("a"), checkpoint(1), push("b"), checkpoint(2), push("c"), checkpoint(3)]);
    let run = connection(steps).batches_of(1).stop_after(2).sync("account", None);
    assert_eq!(shape(&run), ["a@1", "b@2"]);
    assert_eq!((run.outcome.clone(), run.token()), (Ok(None), Some(2.into())));
}

#[test]
fn stop_at_the_last_batch_is_no_error_either() {
    let run = connection(json!([push("a"), {"return": 1}])).stop_after(1).sync("account", None);
    assert_eq!((shape(&run), run.outcome.clone()), (vec!["a@1".to_owned()], Ok(None)));
}

#[test]
fn flush_hands_over_up_to_the_checkpoint() {
    let steps = json!([push("a"), checkpoint(1), push("b"), "flush", checkpoint(2)]);
    let run = connection(steps).sync("account", None);
    assert_eq!(shape(&run), ["a@1", "b@2"]);
    assert_eq!(run.outcome, Ok(None));
}

#[test]
fn uncovered_deltas_fail_the_run() {
    let run = connection(json!([push("a"), checkpoint(1), push("b")])).sync("account", None);
    assert_eq!(shape(&run), ["a@1", "b"]);
    assert_eq!(run.outcome.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn a_refusal_is_an_internal_error_that_names_the_delta() {
    let run = connection(json!([push("a"), push(""), checkpoint(1)])).sync("account", None);
    let error = run.outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("delta 1"), "{error}");
}

#[test]
fn no_checkpoint_stands_between_equal_positions() {
    let steps = json!([{"at": [1, "a"]}, {"at": [2, "b"]}, {"at": [2, "c"]}, {"at": [2, "d"]}, {"at": [3, "e"]}]);
    let run = connection(steps).batches_of(1).sync("account", None);
    assert_eq!(shape(&run), ["a@1", "b", "c", "d@2", "e@3"]);
    assert_eq!(run.token(), Some(3.into()));
}

#[test]
fn positions_that_go_back_are_a_bug() {
    let run = connection(json!([{"at": [2, "a"]}, {"at": [1, "b"]}])).sync("account", None);
    assert_eq!(run.outcome.unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn settings_that_do_not_parse_name_the_field() {
    for (settings, expected) in [
        (
            json!({"steps": [], "depth": {"metres": "x"}}),
            "setting `depth.metres`: invalid type: string \"x\", expected u8",
        ),
        (json!({}), "settings: missing field `steps`"),
    ] {
        let error = Connection::<Scripted>::new(settings).object_classes().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Configuration, expected));
    }
}

#[test]
fn what_is_left_out_is_unsupported() {
    let error = connection(json!([])).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
