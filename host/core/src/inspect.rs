//! Inspects what a connector hands over: nothing reaches the journal that did not pass here. Keeps the contract's state of one
//! call to `sync`: after a rejection or a `stop`, nothing more is taken.

use std::fmt;
use std::sync::Arc;

use crate::dead_letter::{DataFaults, Fault, TooMany};
use crate::limit::Limits;
use crate::object::{ConnectorObject, SyncDelta, Value, ValueMode};
use crate::schema::{ALL_CLASSES, Classes, ValueType};
use crate::token::{SyncToken, TOKEN_BYTES_MAX};

/// Why something was refused; the contract's `rejection-code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the cases are documented in wit/types.wit")]
pub enum RejectionCode {
    EmptyUid,
    UndeclaredClass,
    NotInSync,
    AfterStop,
    BatchTooLarge,
    TokenTooLarge,
    DataFault,
    PendingWithoutCheckpoint,
    EarlierRejection,
    NotDurable,
}

impl RejectionCode {
    /// The code as it stands in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmptyUid => "empty-uid",
            Self::UndeclaredClass => "undeclared-class",
            Self::NotInSync => "not-in-sync",
            Self::AfterStop => "after-stop",
            Self::BatchTooLarge => "batch-too-large",
            Self::TokenTooLarge => "token-too-large",
            Self::DataFault => "data-fault",
            Self::PendingWithoutCheckpoint => "pending-without-checkpoint",
            Self::EarlierRejection => "earlier-rejection",
            Self::NotDurable => "not-durable",
        }
    }
}

/// A longer uid isn't kept with a refusal: what an object is called must be found again as a whole when the object is erased.
const UID_BYTES_MAX: usize = 1024;

/// A refusal, as the connector gets it and as the run fails with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub code: RejectionCode,
    /// Names the thing.
    pub message: String,
    /// Which delta of the batch.
    pub delta_index: Option<u32>,
    /// The uid of that delta, so that it can be repaired by uid.
    pub uid: Option<String>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl Rejection {
    fn new(code: RejectionCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), delta_index: None, uid: None }
    }

    fn at(mut self, index: usize, delta: &SyncDelta) -> Self {
        self.delta_index = u32::try_from(index).ok();
        self.uid = Some(delta.change.uid()).filter(|uid| uid.len() <= UID_BYTES_MAX).map(str::to_owned);
        self
    }
}

impl Rejection {
    /// Whether classes that are out of date may be the cause: a source can get a class or an attribute at any time.
    pub fn is_about_classes(&self) -> bool {
        matches!(self.code, RejectionCode::UndeclaredClass | RejectionCode::DataFault)
    }

    /// Whether it is about the data of one delta, which may become a dead letter.
    fn is_about_data(&self) -> bool {
        self.code == RejectionCode::DataFault
    }
}

/// What passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// The size of the deltas in bytes, without those at fault.
    pub bytes: u64,
    /// What is wrong with some of them, in their order.
    pub faults: Vec<Fault>,
}

/// Inspects the deltas of one run.
#[derive(Debug)]
pub struct Inspector {
    classes: Arc<Classes>,
    limits: Limits,
    data_faults: DataFaults,
    /// The class asked for, while `sync` or `search` is being called.
    asked: Option<String>,
    /// The one object that `search` is called for.
    wanted: Option<String>,
    /// Somebody asked for it, who wants it or nothing.
    must_be_fine: bool,
    /// It is `search`.
    searches: bool,
    /// The first rejection; the run has failed.
    rejected: Option<Rejection>,
    stopped: bool,
    /// Deltas came since the last checkpoint.
    uncovered: bool,
    /// By the place of its declaration, what came of each attribute of the object at hand.
    seen: Vec<Seen>,
    /// The largest delta that passed, in bytes.
    largest: u64,
}

impl Inspector {
    /// An inspector for a run against these classes.
    pub fn new(classes: Arc<Classes>, limits: Limits, data_faults: DataFaults) -> Self {
        Self {
            classes,
            limits,
            data_faults,
            asked: None,
            wanted: None,
            must_be_fine: false,
            searches: false,
            rejected: None,
            stopped: false,
            uncovered: false,
            seen: Vec::new(),
            largest: 0,
        }
    }

    /// Takes the source's classes anew, and forgets a rejection that the old ones may have caused.
    pub fn renew(&mut self, classes: Arc<Classes>) {
        self.classes = classes;
        self.rejected.take_if(|rejection| rejection.is_about_classes());
    }

    /// `sync` is about to be called for this class.
    pub fn open(&mut self, class: &str) {
        self.asked = Some(class.to_owned());
    }

    /// `search` is about to be called for this class; for one object of it, or all. `must_be_fine`: whoever asks has no use for dead letters.
    pub fn open_search(&mut self, class: &str, uid: Option<&str>, must_be_fine: bool) {
        self.open(class);
        (self.searches, self.wanted, self.must_be_fine) = (true, uid.map(str::to_owned), must_be_fine);
    }

    /// The class whose objects are expected, during `search`.
    pub fn class_searched(&self) -> Option<String> {
        self.asked.clone().filter(|_| self.searches)
    }

    /// `sync` returned. Answers the rejection that the call met, if any: it failed, whatever it returned.
    pub fn close(&mut self) -> Option<Rejection> {
        self.asked = None;
        self.rejected.clone()
    }

    /// The connector was answered `stop`.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether the connector was answered `stop`: then the token it returns is ignored.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Inspects one `emit`.
    ///
    /// # Errors
    /// What the connector gets to see. From then on everything is refused.
    pub fn emit(&mut self, deltas: &[SyncDelta], checkpoint: Option<&SyncToken>) -> Result<Inspected, Rejection> {
        let inspected = self.gate("emit").and_then(|()| self.batch(deltas, checkpoint));
        let inspected = inspected.inspect_err(|rejection| self.reject(rejection))?;
        self.uncovered = checkpoint.is_none() && (self.uncovered || !deltas.is_empty());
        Ok(inspected)
    }

    /// Refuses a batch of which more would become dead letters than may.
    pub fn refuse_letters(&mut self, too_many: TooMany) -> Rejection {
        let TooMany { index, uid, problem } = too_many;
        let (delta_index, uid) = (u32::try_from(index).ok(), Some(uid));
        let rejection = Rejection { delta_index, uid, ..Rejection::new(RejectionCode::DataFault, problem) };
        self.reject(&rejection);
        rejection
    }

    /// The largest delta that passed, in bytes.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Inspects one `flush`.
    ///
    /// # Errors
    /// As `emit`.
    pub fn flush(&mut self) -> Result<(), Rejection> {
        let pending = |uncovered: bool| match uncovered {
            false => Ok(()),
            true => Err(Rejection::new(
                RejectionCode::PendingWithoutCheckpoint,
                "flush while deltas without a checkpoint are pending: emit a checkpoint first",
            )),
        };
        self.gate("flush").and_then(|()| pending(self.uncovered)).inspect_err(|rejection| self.reject(rejection))
    }

    /// Refuses something that belongs to another call, for instance search results during `sync`.
    pub fn refuse(&mut self, what: &str) -> Rejection {
        let rejection = Rejection::new(RejectionCode::NotInSync, format!("{what} outside the call it belongs to"));
        self.reject(&rejection);
        rejection
    }

    fn reject(&mut self, rejection: &Rejection) {
        self.rejected.get_or_insert_with(|| rejection.clone());
    }

    fn gate(&self, what: &str) -> Result<(), Rejection> {
        if let Some(earlier) = &self.rejected {
            let message = format!("an earlier call was rejected ({}); nothing more is taken", earlier.code.as_str());
            return Err(Rejection::new(RejectionCode::EarlierRejection, message));
        }
        if self.asked.is_none() {
            return Err(Rejection::new(RejectionCode::NotInSync, format!("{what} outside sync")));
        }
        if self.stopped && what == "emit" {
            return Err(Rejection::new(RejectionCode::AfterStop, "emit after the host answered stop"));
        }
        Ok(())
    }

    fn batch(&mut self, deltas: &[SyncDelta], checkpoint: Option<&SyncToken>) -> Result<Inspected, Rejection> {
        let too_large = |what: String| Err(Rejection::new(RejectionCode::BatchTooLarge, what));
        let count_max = self.limits.batch_count_max;
        if deltas.len() > count_max as usize {
            return too_large(format!("a batch of {} deltas; at most {count_max} are taken", deltas.len()));
        }
        if let Some(token) = checkpoint.filter(|token| token.size() > TOKEN_BYTES_MAX) {
            let message = format!("a checkpoint of {} bytes; at most {TOKEN_BYTES_MAX} are kept", token.size());
            return Err(Rejection::new(RejectionCode::TokenTooLarge, message));
        }
        let mut inspected = Inspected::default();
        for (index, delta) in deltas.iter().enumerate() {
            match self.delta(delta) {
                Ok(size) => {
                    self.largest = self.largest.max(size);
                    inspected.bytes += size;
                }
                Err(rejection) if self.may_die(&rejection, delta) => {
                    let too_large = delta.size() as u64 > self.limits.object_bytes_max;
                    inspected.faults.push(Fault { index, problem: rejection.message, too_large });
                }
                Err(rejection) => return Err(rejection.at(index, delta)),
            }
        }
        let (bytes, bytes_max) = (inspected.bytes, self.limits.batch_bytes_max);
        if bytes > bytes_max {
            return too_large(format!("a batch of {bytes} bytes; at most {bytes_max} are taken"));
        }
        Ok(inspected)
    }

    /// Whether a delta may become a dead letter. One whose uids are too long could not be told from others, and another object than was asked for
    /// is no object.
    fn may_die(&self, rejection: &Rejection, delta: &SyncDelta) -> bool {
        let is_short = |uid: &str| uid.len() <= UID_BYTES_MAX;
        let previous = delta.change.previous_uid();
        rejection.is_about_data()
            && self.data_faults == DataFaults::DeadLetter
            && !self.must_be_fine
            && self.wanted.as_deref().is_none_or(|wanted| wanted == delta.change.uid())
            && is_short(delta.change.uid())
            && previous.is_none_or(is_short)
    }

    fn delta(&mut self, delta: &SyncDelta) -> Result<u64, Rejection> {
        let asked = self.asked.as_deref().unwrap_or_default();
        let place = self.classes.place(&delta.object_class).ok_or_else(|| {
            let message = format!("class {:?} is not declared by object-classes", named(&delta.object_class));
            Rejection::new(RejectionCode::UndeclaredClass, message)
        })?;
        if asked != ALL_CLASSES && !delta.object_class.eq_ignore_ascii_case(asked) {
            let message = format!("a delta of class {:?}, but {asked:?} was asked for", named(&delta.object_class));
            return Err(Rejection::new(RejectionCode::UndeclaredClass, message));
        }
        let uid = delta.change.uid();
        if uid.is_empty() {
            return Err(Rejection::new(RejectionCode::EmptyUid, format!("a {} without uid", delta.change.kind())));
        }
        if self.wanted.as_ref().is_some_and(|wanted| wanted != uid) {
            let message = format!("object {} in the place of the one that was asked for", called(uid));
            return Err(Rejection::new(RejectionCode::DataFault, message));
        }
        let class = named(&delta.object_class);
        let fault = |what: String| Rejection::new(RejectionCode::DataFault, format!("{class} {}: {what}", called(uid)));
        if let Some(time) = &delta.source_time {
            timestamp(time).map_err(|what| fault(format!("source-time: {what}")))?;
        }
        let object = delta.change.object();
        let inspected = object.map_or(Ok(()), |it| check_object(&self.classes, place, &mut self.seen, uid, it));
        inspected.map_err(fault)?;
        let bytes = delta.size() as u64;
        if bytes > self.limits.object_bytes_max {
            return Err(fault(format!("{bytes} bytes, more than the {} of an object", self.limits.object_bytes_max)));
        }
        Ok(bytes)
    }
}

/// What came of one attribute of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    Added,
    Removed,
    Everything,
}

impl Seen {
    /// Takes what comes next, unless it was there already; what came and what went are two different things.
    fn take(&mut self, mode: ValueMode) -> bool {
        let now = match (*self, mode) {
            (Self::Nothing, ValueMode::Added) => Self::Added,
            (Self::Nothing, ValueMode::Removed) => Self::Removed,
            (Self::Nothing, _) | (Self::Added, ValueMode::Removed) | (Self::Removed, ValueMode::Added) => {
                Self::Everything
            }
            _ => return false,
        };
        *self = now;
        true
    }
}

fn check_object(
    classes: &Classes,
    class: usize,
    seen: &mut Vec<Seen>,
    uid: &str,
    object: &ConnectorObject,
) -> Result<(), String> {
    if object.uid != uid {
        return Err(format!("its last known object has another uid, {}", called(&object.uid)));
    }
    seen.clear();
    let mut next = 0;
    for attribute in &object.attributes {
        let name = &attribute.name;
        let info = classes.attribute(class, name, next);
        let (place, info) = info.ok_or_else(|| format!("attribute {:?} is not declared", named(name)))?;
        next = place + 1;
        if seen.len() < next {
            seen.resize(next, Seen::Nothing);
        }
        if !seen[place].take(attribute.mode) {
            return Err(format!("attribute {:?} comes twice", named(name)));
        }
        for value in &attribute.values {
            check_value(value, info.value_type).map_err(|what| {
                // What is sensitive isn't told, not even by a part.
                let what = match info.sensitive {
                    true => format!("its value is no proper {:?}", info.value_type).to_lowercase(),
                    false => what,
                };
                format!("attribute {:?}: {what}", named(name))
            })?;
        }
    }
    Ok(())
}

fn check_value(value: &Value, declared: ValueType) -> Result<(), String> {
    let (is, well_formed) = match value {
        Value::Text(_) => (ValueType::Text, Ok(())),
        Value::Integer(_) => (ValueType::Integer, Ok(())),
        Value::Decimal(text) => (ValueType::Decimal, decimal(text)),
        Value::Real(number) if number.is_finite() => (ValueType::Real, Ok(())),
        Value::Real(number) => (ValueType::Real, Err(format!("{number} is not a finite number"))),
        Value::Bool(_) => (ValueType::Boolean, Ok(())),
        Value::Binary(_) => (ValueType::Binary, Ok(())),
        Value::Timestamp(text) => (ValueType::Timestamp, timestamp(text)),
        Value::Reference { uid, .. } if uid.is_empty() => (ValueType::Reference, Err("a reference without uid".into())),
        Value::Reference { .. } => (ValueType::Reference, Ok(())),
        Value::Json(text) => (ValueType::Json, json(text)),
        Value::Secret => (ValueType::Secret, Ok(())),
    };
    if is != declared {
        return Err(format!("a value of type {is:?}, but {declared:?} is declared").to_lowercase());
    }
    well_formed
}

fn decimal(text: &str) -> Result<(), String> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = text.strip_prefix('-').unwrap_or(text);
    let well_formed = match number.split_once('.') {
        None => digits(number),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
    };
    if well_formed { Ok(()) } else { Err(format!("{:?} is not a decimal number", value(text))) }
}

fn timestamp(text: &str) -> Result<(), String> {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map(drop).map_err(|_| format!("{:?} is not an RFC 3339 timestamp with an offset", value(text)))
}

fn json(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| format!("not JSON: {error}"))
}

/// Enough of a bad value to find it again.
fn value(text: &str) -> &str {
    cut(text, 40)
}

/// Enough of a name of the guest's to find it again: what it says is kept with its run.
fn named(text: &str) -> &str {
    cut(text, 200)
}

/// A uid as a whole, or nothing of it.
fn called(uid: &str) -> String {
    match uid.len() > UID_BYTES_MAX {
        false => format!("{uid:?}"),
        true => format!("(a uid of {} bytes)", uid.len()),
    }
}

fn cut(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Change;

    #[test]
    fn words_of_a_guest_are_cut_where_they_are_kept() {
        let mut inspector = Inspector::new(Arc::default(), Limits::default(), DataFaults::Fail);
        inspector.open("account");
        let long = "\u{7f}".repeat(5_000_000);
        let refused = |inspector: &mut Inspector, uid: &str| {
            let object = ConnectorObject { uid: uid.to_owned(), name: String::new(), attributes: Vec::new() };
            let delta = SyncDelta { object_class: long.clone(), change: Change::Create(object), source_time: None };
            let rejection = inspector.emit(&[delta], None).unwrap_err();
            assert!(rejection.message.len() < 3000, "{} bytes", rejection.message.len());
            rejection.uid
        };
        let uid = &"x".repeat(UID_BYTES_MAX);
        assert_eq!(refused(&mut inspector, uid).as_ref(), Some(uid));
        let mut inspector = Inspector::new(Arc::default(), Limits::default(), DataFaults::Fail);
        inspector.open("account");
        assert_eq!(refused(&mut inspector, &format!("{uid}x")), None, "as a whole, or nothing of it");
        assert_eq!((called("a\"b"), called(&long)), ("\"a\\\"b\"".to_owned(), "(a uid of 5000000 bytes)".to_owned()));
    }

    #[test]
    fn an_attribute_comes_once_or_as_what_came_beside_what_went() {
        use ValueMode::{Added, Part, Removed, Whole};
        let taken = |modes: &[ValueMode]| {
            let mut seen = Seen::default();
            modes.iter().all(|mode| seen.take(*mode))
        };
        for fine in [&[Whole][..], &[Part], &[Added, Removed], &[Removed, Added]] {
            assert!(taken(fine), "{fine:?}");
        }
        for twice in [&[Whole, Whole][..], &[Added, Added], &[Whole, Added], &[Removed, Part], &[Added, Removed, Added]]
        {
            assert!(!taken(twice), "{twice:?}");
        }
    }
}
