//! The contract's generated types and the core's words, each into the other. Moves; copies nothing.

use tidewaiter_core::inspect::{Rejection, RejectionCode};
use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode};
use tidewaiter_core::run::{ConnectorError, ErrorKind};
use tidewaiter_core::schema::{
    AttributeInfo, Capability, CapabilityRequest, ChangeFeed, ConnectorInfo, ObjectClassInfo, Operation, ValueType,
};
use tidewaiter_core::token::SyncToken;

use super::bindings::tidewaiter::connector::types as wit;

pub(super) fn token(token: wit::SyncToken) -> SyncToken {
    match token {
        wit::SyncToken::Integer(number) => SyncToken::Integer(number),
        wit::SyncToken::Text(text) => SyncToken::Text(text),
        wit::SyncToken::Binary(bytes) => SyncToken::Binary(bytes),
    }
}

pub(super) fn to_token(token: SyncToken) -> wit::SyncToken {
    match token {
        SyncToken::Integer(number) => wit::SyncToken::Integer(number),
        SyncToken::Text(text) => wit::SyncToken::Text(text),
        SyncToken::Binary(bytes) => wit::SyncToken::Binary(bytes),
    }
}

pub(super) fn delta(delta: wit::SyncDelta) -> SyncDelta {
    let change = match delta.change {
        wit::Change::Create(it) => Change::Create(object(it)),
        wit::Change::Update(it) => Change::Update { object: object(it.object), previous_uid: it.previous_uid },
        wit::Change::CreateOrUpdate(it) => {
            Change::CreateOrUpdate { object: object(it.object), previous_uid: it.previous_uid }
        }
        wit::Change::Delete(it) => Change::Delete { uid: it.uid, name: it.name, last_known: it.last_known.map(object) },
    };
    SyncDelta { object_class: delta.object_class, change, source_time: delta.source_time }
}

pub(super) fn object(object: wit::ConnectorObject) -> ConnectorObject {
    let attributes = object.attributes.into_iter().map(attribute).collect();
    ConnectorObject { uid: object.uid, name: object.name, attributes }
}

fn attribute(attribute: wit::Attribute) -> Attribute {
    let mode = match attribute.mode {
        wit::ValueMode::Whole => ValueMode::Whole,
        wit::ValueMode::Part => ValueMode::Part,
        wit::ValueMode::Added => ValueMode::Added,
        wit::ValueMode::Removed => ValueMode::Removed,
    };
    Attribute { name: attribute.name, values: attribute.values.into_iter().map(value).collect(), mode }
}

fn value(value: wit::Value) -> Value {
    match value {
        wit::Value::Text(text) => Value::Text(text),
        wit::Value::Integer(number) => Value::Integer(number),
        wit::Value::Decimal(text) => Value::Decimal(text),
        wit::Value::Real(number) => Value::Real(number),
        wit::Value::Boolean(flag) => Value::Bool(flag),
        wit::Value::Binary(bytes) => Value::Binary(bytes),
        wit::Value::Timestamp(text) => Value::Timestamp(text),
        wit::Value::Reference(to) => Value::Reference { object_class: to.object_class, uid: to.uid },
        wit::Value::Json(text) => Value::Json(text),
        wit::Value::Secret(_) => Value::Secret,
    }
}

pub(super) fn rejection(rejection: Rejection) -> wit::Rejection {
    let code = match rejection.code {
        RejectionCode::EmptyUid => wit::RejectionCode::EmptyUid,
        RejectionCode::UndeclaredClass => wit::RejectionCode::UndeclaredClass,
        RejectionCode::NotInSync => wit::RejectionCode::NotInSync,
        RejectionCode::AfterStop => wit::RejectionCode::AfterStop,
        RejectionCode::BatchTooLarge => wit::RejectionCode::BatchTooLarge,
        RejectionCode::TokenTooLarge => wit::RejectionCode::TokenTooLarge,
        RejectionCode::DataFault => wit::RejectionCode::DataFault,
        RejectionCode::PendingWithoutCheckpoint => wit::RejectionCode::PendingWithoutCheckpoint,
        RejectionCode::EarlierRejection => wit::RejectionCode::EarlierRejection,
        RejectionCode::NotDurable => wit::RejectionCode::NotDurable,
    };
    wit::Rejection { code, message: rejection.message, delta_index: rejection.delta_index }
}

pub(super) fn error(error: wit::ConnectorError) -> ConnectorError {
    let kind = match error.kind {
        wit::ErrorKind::Configuration => ErrorKind::Configuration,
        wit::ErrorKind::InvalidCredential => ErrorKind::InvalidCredential,
        wit::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        wit::ErrorKind::ConnectionFailed => ErrorKind::ConnectionFailed,
        wit::ErrorKind::ConnectionBroken => ErrorKind::ConnectionBroken,
        wit::ErrorKind::TimedOut => ErrorKind::TimedOut,
        wit::ErrorKind::RateLimited => ErrorKind::RateLimited,
        wit::ErrorKind::Retryable => ErrorKind::Retryable,
        wit::ErrorKind::UnknownObjectClass => ErrorKind::UnknownObjectClass,
        wit::ErrorKind::InvalidSyncToken => ErrorKind::InvalidSyncToken,
        wit::ErrorKind::Unsupported => ErrorKind::Unsupported,
        wit::ErrorKind::Internal => ErrorKind::Internal,
        wit::ErrorKind::Other => ErrorKind::Other,
    };
    let message = tidewaiter_core::text::shown(&error.message, 4096);
    ConnectorError { kind, message, retry_after_ms: error.retry_after_ms }
}

pub(super) fn info(info: wit::ConnectorInfo) -> ConnectorInfo {
    let operation = |operation| match operation {
        wit::Operation::LiveSync => Operation::LiveSync,
        wit::Operation::Search => Operation::Search,
        wit::Operation::SearchByUid => Operation::SearchByUid,
        wit::Operation::Check => Operation::Check,
    };
    let capability = |request: wit::CapabilityRequest| CapabilityRequest {
        capability: match request.capability {
            wit::Capability::Http(text) => Capability::Http(text),
            wit::Capability::Tcp(text) => Capability::Tcp(text),
            wit::Capability::Read(text) => Capability::Read(text),
            wit::Capability::Write(text) => Capability::Write(text),
            wit::Capability::Reveal(text) => Capability::Reveal(text),
        },
        reason: request.reason,
        optional: request.optional,
    };
    ConnectorInfo {
        name: info.name,
        version: info.version,
        summary: info.summary,
        licence: info.licence,
        operations: info.operations.into_iter().map(operation).collect(),
        settings_schema: info.settings_schema,
        settings_version: info.settings_version,
        token_formats_read: info.token_formats_read,
        token_format_written: info.token_format_written,
        capabilities: info.capabilities.into_iter().map(capability).collect(),
        all_classes: info.all_classes,
    }
}

pub(super) fn class(class: wit::ObjectClassInfo) -> ObjectClassInfo {
    ObjectClassInfo {
        name: class.name,
        attributes: class.attributes.into_iter().map(attribute_info).collect(),
        reports_deletes: class.reports_deletes,
        whole_objects: class.whole_objects,
        changes: match class.changes {
            wit::ChangeFeed::ByToken => ChangeFeed::ByToken,
            wit::ChangeFeed::ByComparison => ChangeFeed::ByComparison,
        },
    }
}

fn attribute_info(info: wit::AttributeInfo) -> AttributeInfo {
    let is = |flag| info.properties.contains(flag);
    AttributeInfo {
        value_type: match info.value_type {
            wit::ValueType::Text => ValueType::Text,
            wit::ValueType::Integer => ValueType::Integer,
            wit::ValueType::Decimal => ValueType::Decimal,
            wit::ValueType::Real => ValueType::Real,
            wit::ValueType::Boolean => ValueType::Boolean,
            wit::ValueType::Binary => ValueType::Binary,
            wit::ValueType::Timestamp => ValueType::Timestamp,
            wit::ValueType::Reference => ValueType::Reference,
            wit::ValueType::Json => ValueType::Json,
            wit::ValueType::Secret => ValueType::Secret,
        },
        multi_valued: is(wit::AttributeFlags::MULTI_VALUED),
        ordered: is(wit::AttributeFlags::ORDERED),
        case_ignore: is(wit::AttributeFlags::CASE_IGNORE),
        sensitive: is(wit::AttributeFlags::SENSITIVE),
        volatile: is(wit::AttributeFlags::VOLATILE),
        required: is(wit::AttributeFlags::REQUIRED),
        not_returned_by_default: is(wit::AttributeFlags::NOT_RETURNED_BY_DEFAULT),
        name: info.name,
    }
}
