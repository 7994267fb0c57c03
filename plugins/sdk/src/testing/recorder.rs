//! The host that only records, one for each thread and call. Owns the rules that a host enforces on what it is handed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use crate::bindings::tidewaiter::connector::secrets::Refusal;
use crate::host::Flow;
use crate::log::Level;
use crate::{Change, Delta, Object, Rejection, RejectionCode, SyncOptions, SyncToken, Value, ValueMode};

/// The longest sync token.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// One batch, as it was handed over.
#[derive(Debug, Clone, PartialEq)]
pub struct Emit {
    /// The changes.
    pub deltas: Vec<Delta>,
    /// The resume point after them.
    pub checkpoint: Option<SyncToken>,
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) settings: String,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) limits: Option<SyncOptions>,
    pub(crate) stop_after: Option<usize>,
    pub(crate) emits: Vec<Emit>,
    pub(crate) objects: Vec<Object>,
    pub(crate) stopped: bool,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) rejection: Option<Rejection>,
}

thread_local! {
    static CURRENT: RefCell<Recorder> = RefCell::default();
}

/// Calls with this recorder as the host of the thread, and gives it back.
pub(crate) fn during<T>(recorder: Recorder, call: impl FnOnce() -> T) -> (Recorder, T) {
    CURRENT.set(recorder);
    let answer = call();
    (CURRENT.take(), answer)
}

pub(crate) fn with<T>(call: impl FnOnce(&mut Recorder) -> T) -> T {
    CURRENT.with_borrow_mut(call)
}

impl Recorder {
    pub(crate) fn emit(&mut self, deltas: &[Delta], checkpoint: Option<&SyncToken>) -> Result<Flow, Rejection> {
        self.taking()?;
        if let Err(rejection) = self.check(deltas, checkpoint) {
            return Err(self.reject(rejection));
        }
        self.emits.push(Emit { deltas: deltas.to_vec(), checkpoint: checkpoint.cloned() });
        Ok(self.flow(self.emits.len()))
    }

    pub(crate) fn emit_objects(&mut self, objects: &[Object]) -> Result<Flow, Rejection> {
        self.taking()?;
        for (index, object) in objects.iter().enumerate() {
            if let Err(rejection) = check_object(object, index) {
                return Err(self.reject(rejection));
            }
        }
        self.objects.extend_from_slice(objects);
        Ok(self.flow(1))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Rejection> {
        self.taking()?;
        match self.emits.last() {
            Some(emit) if emit.checkpoint.is_none() => Err(self.reject(rejection(
                RejectionCode::PendingWithoutCheckpoint,
                "flush while deltas without a checkpoint are pending",
                None,
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn reveal(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        self.secrets.get(name).cloned().ok_or(Refusal::Unknown)
    }

    fn taking(&mut self) -> Result<(), Rejection> {
        if self.rejection.is_some() {
            return Err(rejection(RejectionCode::EarlierRejection, "an earlier call was rejected", None));
        }
        if self.stopped {
            let late = rejection(RejectionCode::AfterStop, "handed over after stop", None);
            return Err(self.reject(late));
        }
        Ok(())
    }

    fn reject(&mut self, rejection: Rejection) -> Rejection {
        self.rejection = Some(rejection.clone());
        rejection
    }

    fn flow(&mut self, emits: usize) -> Flow {
        self.stopped = self.stop_after.is_some_and(|after| emits >= after);
        if self.stopped { Flow::Stop } else { Flow::Proceed }
    }

    fn check(&self, deltas: &[Delta], checkpoint: Option<&SyncToken>) -> Result<(), Rejection> {
        let Some(limits) = &self.limits else {
            return Err(rejection(RejectionCode::NotInSync, "emit outside sync", None));
        };
        let bytes: u64 = deltas.iter().map(Delta::size).sum();
        if deltas.len() > limits.batch_count_max as usize || bytes > limits.batch_bytes_max {
            let message = format!("a batch of {} deltas with {bytes} bytes", deltas.len());
            return Err(rejection(RejectionCode::BatchTooLarge, message, None));
        }
        let token_bytes = match checkpoint {
            Some(SyncToken::Text(text)) => text.len(),
            Some(SyncToken::Binary(bytes)) => bytes.len(),
            _ => 0,
        };
        if token_bytes > TOKEN_BYTES_MAX {
            let message = format!("a token of {token_bytes} bytes");
            return Err(rejection(RejectionCode::TokenTooLarge, message, None));
        }
        deltas.iter().enumerate().try_for_each(|(index, delta)| check_delta(delta, index))
    }
}

fn check_delta(delta: &Delta, index: usize) -> Result<(), Rejection> {
    if delta.uid().is_empty() {
        return Err(rejection(RejectionCode::EmptyUid, "a delta without uid", Some(index)));
    }
    match &delta.change {
        Change::Create(object) => check_object(object, index),
        Change::Update(updated) | Change::CreateOrUpdate(updated) => check_object(&updated.object, index),
        Change::Delete(deleted) => deleted.last_known.as_ref().map_or(Ok(()), |object| check_object(object, index)),
    }
}

fn check_object(object: &Object, index: usize) -> Result<(), Rejection> {
    let fault = |message: String| Err(rejection(RejectionCode::DataFault, message, Some(index)));
    if object.uid.is_empty() {
        return Err(rejection(RejectionCode::EmptyUid, "an object without uid", Some(index)));
    }
    let mut names = HashSet::new();
    for attribute in &object.attributes {
        let removed = attribute.mode == ValueMode::Removed;
        if !names.insert((attribute.name.to_lowercase(), removed)) {
            return fault(format!("the attribute {:?} twice", attribute.name));
        }
        for value in &attribute.values {
            if let Value::Real(real) = value
                && !real.is_finite()
            {
                return fault(format!("the attribute {:?} is not a number", attribute.name));
            }
        }
    }
    Ok(())
}

fn rejection(code: RejectionCode, message: impl Into<String>, index: Option<usize>) -> Rejection {
    Rejection { code, message: message.into(), delta_index: index.and_then(|index| u32::try_from(index).ok()) }
}
