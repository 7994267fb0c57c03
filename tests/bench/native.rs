//! The same connector, compiled into this program, and one that is a subprocess printing JSON: both behind the host's trait, so that
//! everything after the connector is the same.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use synthetic::Plan;
use tidewaiter::db::pack;
use tidewaiter::driver::{Calling, Session, Source};
use tidewaiter::wasm::{FromGuest, Setup, SyncOptions};
use tidewaiter_connector::bindings::tidewaiter::connector::types as sdk;
use tidewaiter_core::inspect::{Inspected, Inspector};
use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode};
use tidewaiter_core::run::Failure;
use tidewaiter_core::schema::{AttributeInfo, ChangeFeed, Classes, ConnectorInfo, ObjectClassInfo, ValueType};
use tidewaiter_core::token::SyncToken;
use tidewaiter_tests::info;
use tokio::sync::mpsc;

/// How the changes come into this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Made here.
    Native,
    /// Printed by another process, and parsed here.
    Ndjson,
}

#[derive(Debug)]
pub(crate) struct NativeSource {
    way: Way,
    info: ConnectorInfo,
}

impl NativeSource {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, info: info("synthetic") }
    }
}

impl Source for NativeSource {
    fn info(&self) -> &ConnectorInfo {
        &self.info
    }

    fn start(&self, setup: Setup) -> Calling<'_, Box<dyn Session>> {
        let plan = Plan::parse(&setup.settings_json);
        let inspector = Inspector::new(setup.classes.unwrap_or_default(), setup.limits, setup.data_faults);
        let session = NativeSession { way: self.way, plan, inspector: Some((inspector, setup.to_run)) };
        Box::pin(async move { Ok(Box::new(session) as Box<dyn Session>) })
    }
}

struct NativeSession {
    way: Way,
    plan: Plan,
    /// Away while `sync` is being called.
    inspector: Option<(Inspector, mpsc::Sender<FromGuest>)>,
}

fn host(message: impl ToString) -> Failure {
    Failure::Host { message: message.to_string() }
}

impl Session for NativeSession {
    fn set_classes(&mut self, classes: Arc<Classes>) {
        if let Some((inspector, _)) = &mut self.inspector {
            inspector.renew(classes);
        }
    }

    fn object_classes(&mut self) -> Calling<'_, Vec<ObjectClassInfo>> {
        let classes = synthetic::classes(synthetic::Plan::parse("")).into_iter().map(class).collect();
        Box::pin(async move { Ok(classes) })
    }

    fn check(&mut self) -> Calling<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn latest<'a>(&'a mut self, _: &'a str) -> Calling<'a, Option<SyncToken>> {
        let last = self.plan.last;
        Box::pin(async move { Ok(Some(SyncToken::Integer(last))) })
    }

    fn sync<'a>(
        &'a mut self,
        class: &'a str,
        token: Option<SyncToken>,
        _: SyncOptions,
    ) -> Calling<'a, Option<SyncToken>> {
        let (way, plan, class) = (self.way, self.plan, class.to_owned());
        Box::pin(async move {
            let (mut inspector, to_run) = self.inspector.take().ok_or_else(|| host("called twice at once"))?;
            inspector.open(&class);
            let called = move || {
                let mut hand_over = |deltas: Vec<SyncDelta>, checkpoint: Option<i64>| {
                    let checkpoint = checkpoint.map(SyncToken::Integer);
                    let Ok(Inspected { bytes, .. }) = inspector.emit(&deltas, checkpoint.as_ref()) else {
                        return false;
                    };
                    let Ok(deltas) = pack(&deltas) else { return false };
                    to_run
                        .blocking_send(FromGuest::Batch {
                            deltas,
                            kept: Vec::new(),
                            resolved: Vec::new(),
                            bytes,
                            checkpoint,
                        })
                        .is_ok()
                };
                let last = match way {
                    Way::Native => {
                        let token = token.and_then(|token| match token {
                            SyncToken::Integer(number) => Some(sdk::SyncToken::Integer(number)),
                            _ => None,
                        });
                        synthetic::sync(plan, token, |batch, checkpoint| {
                            hand_over(batch.into_iter().map(delta).collect(), checkpoint)
                        })
                    }
                    Way::Ndjson => parsed(plan, &mut hand_over)?,
                };
                Ok::<_, Failure>((last, (inspector, to_run)))
            };
            let (last, inspector) = tokio::task::spawn_blocking(called).await.map_err(host)??;
            self.inspector = Some(inspector);
            Ok(Some(SyncToken::Integer(last)))
        })
    }

    fn was_stopped(&self) -> bool {
        false
    }
}

/// Reads what the other process prints, a change a line.
fn parsed(plan: Plan, hand_over: &mut dyn FnMut(Vec<SyncDelta>, Option<i64>) -> bool) -> Result<i64, Failure> {
    let program = std::env::current_exe().map_err(host)?;
    let mut child =
        Command::new(program).args(["ndjson", &plan.last.to_string()]).stdout(Stdio::piped()).spawn().map_err(host)?;
    let stdout = child.stdout.take().ok_or_else(|| host("no pipe"))?;
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 16, stdout), String::new());
    let (mut done, mut batch) = (0, Vec::new());
    loop {
        line.clear();
        let end = lines.read_line(&mut line).map_err(host)? == 0;
        if !end {
            batch.push(serde_json::from_str(&line).map_err(host)?);
            done += 1;
        }
        let full = batch.len() as i64 >= plan.batch;
        if (full || end) && !batch.is_empty() && !hand_over(std::mem::take(&mut batch), Some(done)) {
            break;
        }
        if end {
            break;
        }
    }
    child.wait().map_err(host)?;
    Ok(done)
}

/// What the other process does.
pub(crate) fn print_ndjson(last: i64) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    for number in 1..=last {
        serde_json::to_writer(&mut out, &delta(synthetic::delta(number)))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

pub(crate) fn delta(delta: sdk::SyncDelta) -> SyncDelta {
    let change = match delta.change {
        sdk::Change::CreateOrUpdate(it) => {
            Change::CreateOrUpdate { object: object(it.object), previous_uid: it.previous_uid }
        }
        other => panic!("the synthetic connector makes no {other:?}"),
    };
    SyncDelta { object_class: delta.object_class, change, source_time: delta.source_time }
}

fn object(object: sdk::ConnectorObject) -> ConnectorObject {
    let attribute = |attribute: sdk::Attribute| Attribute {
        name: attribute.name,
        values: attribute.values.into_iter().map(value).collect(),
        mode: ValueMode::Whole,
    };
    let attributes = object.attributes.into_iter().map(attribute).collect();
    ConnectorObject { uid: object.uid, name: object.name, attributes }
}

fn value(value: sdk::Value) -> Value {
    match value {
        sdk::Value::Text(text) => Value::Text(text),
        sdk::Value::Integer(number) => Value::Integer(number),
        sdk::Value::Boolean(flag) => Value::Bool(flag),
        sdk::Value::Binary(bytes) => Value::Binary(bytes),
        other => panic!("the synthetic connector makes no {other:?}"),
    }
}

fn class(info: sdk::ObjectClassInfo) -> ObjectClassInfo {
    let attribute = |info: sdk::AttributeInfo| {
        let value_type = match info.value_type {
            sdk::ValueType::Integer => ValueType::Integer,
            sdk::ValueType::Boolean => ValueType::Boolean,
            sdk::ValueType::Binary => ValueType::Binary,
            _ => ValueType::Text,
        };
        let multi_valued = info.properties == sdk::AttributeFlags::MULTI_VALUED;
        AttributeInfo { multi_valued, ..AttributeInfo::new(&info.name, value_type) }
    };
    ObjectClassInfo {
        name: info.name,
        attributes: info.attributes.into_iter().map(attribute).collect(),
        reports_deletes: true,
        whole_objects: true,
        changes: ChangeFeed::ByToken,
    }
}
