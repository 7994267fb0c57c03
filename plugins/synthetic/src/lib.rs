//! A connector that makes its changes up, as many and as fast as it is told: for measuring, as a component and natively. The token
//! is the number of the last change. Speaks to the raw contract, so that batches have the size that is asked for.

#![allow(missing_docs)]

use tidewaiter_connector::bindings::tidewaiter::connector::types::*;

/// What the settings say, as `"name":number`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of the last change.
    pub last: i64,
    /// Changes in a batch.
    pub batch: i64,
    /// Every how many batches have a checkpoint; 0: none.
    pub checkpoint: i64,
    /// Every how many objects differ from what they were, when they are read.
    pub every: i64,
    /// From what: another version differs.
    pub version: i64,
    /// Changes are found by comparison.
    pub compare: bool,
}

impl Plan {
    pub fn parse(settings: &str) -> Self {
        let number = |name: &str| {
            let digits = settings.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest.trim_start());
            digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|text| text.parse().ok())
        };
        Self {
            last: number("last").unwrap_or(0),
            batch: number("batch").unwrap_or(256).max(1),
            checkpoint: number("checkpoint").unwrap_or(1),
            every: number("every").unwrap_or(100).max(1),
            version: number("version").unwrap_or(0),
            compare: number("compare") == Some(1),
        }
    }
}

/// A text with a number in it, without the machinery of formatting: that is not what is measured.
fn numbered(prefix: &str, mut number: u64, suffix: &str) -> String {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let mut text = String::with_capacity(prefix.len() + suffix.len() + 20);
    text.push_str(prefix);
    text.push_str(str::from_utf8(&digits[at..]).unwrap_or_default());
    text.push_str(suffix);
    text
}

/// The n-th change: a person with eight attributes, of some 270 bytes.
pub fn delta(number: i64) -> SyncDelta {
    let attribute = |name: &str, values: Vec<Value>| Attribute { name: name.into(), values, mode: ValueMode::Whole };
    let text = |prefix, number: i64, suffix| Value::Text(numbered(prefix, number.unsigned_abs(), suffix));
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed());
    let key: Vec<u8> = (0..4).flat_map(|n| mixed.rotate_left(n * 16).to_le_bytes()).collect();
    let attributes = vec![
        attribute("mail", vec![text("person.", number, "@example.org")]),
        attribute("given-name", vec![text("Given", number % 1000, "")]),
        attribute("family-name", vec![text("Family", mixed % 100_000, "")]),
        attribute("employee-number", vec![Value::Integer(number)]),
        attribute("active", vec![Value::Boolean(number % 10 != 0)]),
        attribute("key", vec![Value::Binary(key)]),
        attribute("department", vec![text("department-", number % 40, "")]),
        attribute(
            "groups",
            vec![Value::Text("staff".into()), text("site-", number % 7, ""), Value::Text("vpn".into())],
        ),
    ];
    let object = ConnectorObject {
        uid: numbered("uid-", number.unsigned_abs(), ""),
        name: numbered("person", number.unsigned_abs(), ""),
        attributes,
    };
    let change = Change::CreateOrUpdate(Updated { object, previous_uid: None });
    SyncDelta { object_class: "account".into(), change, source_time: None }
}

/// Its one class.
pub fn classes(plan: Plan) -> Vec<ObjectClassInfo> {
    let info = |name: &str, value_type, properties| AttributeInfo { name: name.into(), value_type, properties };
    let one = AttributeFlags::empty();
    let attributes = vec![
        info("mail", ValueType::Text, one),
        info("given-name", ValueType::Text, one),
        info("family-name", ValueType::Text, one),
        info("employee-number", ValueType::Integer, one),
        info("active", ValueType::Boolean, one),
        info("key", ValueType::Binary, one),
        info("department", ValueType::Text, one),
        info("groups", ValueType::Text, AttributeFlags::MULTI_VALUED),
    ];
    vec![ObjectClassInfo {
        name: "account".into(),
        attributes,
        reports_deletes: true,
        whole_objects: true,
        changes: if plan.compare { ChangeFeed::ByComparison } else { ChangeFeed::ByToken },
    }]
}

/// The n-th object, as it is now.
pub fn object(plan: Plan, number: i64) -> ConnectorObject {
    let Change::CreateOrUpdate(Updated { mut object, .. }) = delta(number).change else {
        unreachable!("a change has an object")
    };
    if number % plan.every == 0 {
        let attribute = &mut object.attributes[3];
        attribute.values = vec![Value::Integer(number + plan.version)];
    }
    object
}

/// Hands a page of objects over, which begins after the n-th. Answers where the next one begins.
pub fn search(plan: Plan, after: i64, page: i64, mut emit: impl FnMut(Vec<ConnectorObject>) -> bool) -> Option<i64> {
    let end = (after + page).min(plan.last);
    let mut done = after;
    while done < end {
        let to = (done + plan.batch).min(end);
        if !emit((done + 1..=to).map(|number| object(plan, number)).collect()) {
            return None;
        }
        done = to;
    }
    (end < plan.last).then_some(end)
}

/// Hands the changes after a token over; `emit` answers whether to go on. Answers the last token.
pub fn sync(plan: Plan, token: Option<SyncToken>, mut emit: impl FnMut(Vec<SyncDelta>, Option<i64>) -> bool) -> i64 {
    let mut done = match token {
        Some(SyncToken::Integer(number)) => number,
        _ => 0,
    };
    let mut batches = 0;
    while done < plan.last {
        let to = (done + plan.batch).min(plan.last);
        let batch: Vec<SyncDelta> = (done + 1..=to).map(delta).collect();
        batches += 1;
        let covered = plan.checkpoint > 0 && batches % plan.checkpoint == 0;
        done = to;
        if !emit(batch, covered.then_some(to)) {
            break;
        }
    }
    done
}

#[cfg(target_family = "wasm")]
mod component {
    // The generated export has what it takes to be called from outside.
    #![allow(unsafe_code)]

    use tidewaiter_connector::bindings;
    use tidewaiter_connector::bindings::exports::tidewaiter::connector as exports;
    use tidewaiter_connector::bindings::tidewaiter::connector::sync_results::{Flow, emit};
    use tidewaiter_connector::bindings::tidewaiter::connector::{search_results, settings};

    use super::*;

    struct Synthetic;
    bindings::__export_bindings!(Synthetic with_types_in bindings);

    fn unsupported() -> ConnectorError {
        ConnectorError { kind: ErrorKind::Unsupported, message: "not offered".into(), retry_after_ms: None }
    }

    impl exports::descriptor::Guest for Synthetic {
        fn describe() -> ConnectorInfo {
            ConnectorInfo {
                name: "synthetic".into(),
                version: "0.1.0".into(),
                summary: "Makes its changes up.".into(),
                licence: "Apache-2.0".into(),
                operations: vec![Operation::LiveSync, Operation::Search],
                settings_schema: "{\"type\":\"object\"}".into(),
                settings_version: 1,
                token_formats_read: vec!["number".into()],
                token_format_written: "number".into(),
                capabilities: vec![],
                all_classes: false,
            }
        }

        fn migrate_settings(_: u32, settings: String) -> Result<String, ConnectorError> {
            Ok(settings)
        }
    }

    impl exports::schema::Guest for Synthetic {
        fn object_classes() -> Result<Vec<ObjectClassInfo>, ConnectorError> {
            Ok(classes(Plan::parse(&settings::get())))
        }
    }

    impl exports::check::Guest for Synthetic {
        fn check() -> Result<(), ConnectorError> {
            Ok(())
        }
    }

    impl exports::live_sync::Guest for Synthetic {
        fn get_latest_sync_token(_: String) -> Result<Option<SyncToken>, ConnectorError> {
            Ok(Some(SyncToken::Integer(Plan::parse(&settings::get()).last)))
        }

        fn sync(_: String, token: Option<SyncToken>, _: SyncOptions) -> Result<Option<SyncToken>, ConnectorError> {
            let plan = Plan::parse(&settings::get());
            let last = super::sync(plan, token, |batch, checkpoint| {
                matches!(emit(&batch, checkpoint.map(SyncToken::Integer).as_ref()), Ok(Flow::Proceed))
            });
            Ok(Some(SyncToken::Integer(last)))
        }
    }

    impl exports::search::Guest for Synthetic {
        fn search(
            _: String,
            filter: exports::search::Filter,
            page: Option<Vec<u8>>,
            options: SyncOptions,
        ) -> Result<Option<Vec<u8>>, ConnectorError> {
            if !matches!(filter, exports::search::Filter::All) {
                return Err(unsupported());
            }
            let plan = Plan::parse(&settings::get());
            let after = page.and_then(|page| Some(i64::from_le_bytes(page.try_into().ok()?))).unwrap_or(0);
            let next = super::search(plan, after, i64::from(options.page_size), |batch| {
                matches!(search_results::emit(&batch), Ok(search_results::Flow::Proceed))
            });
            Ok(next.map(|next| next.to_le_bytes().to_vec()))
        }
    }
}
