//! Describing a connector and its object classes: builders with defaults on the contract's records.

use crate::{
    AttributeFlags, AttributeInfo, Capability, CapabilityRequest, ChangeFeed, Info, ObjectClass, Operation, ValueType,
};

/// Each function sets the field of its name; the fields say what they mean.
impl Info {
    /// A connector without operations, settings or capabilities, under Apache-2.0.
    ///
    /// `name` is the file's name without `.wasm`; `version` is mostly `env!("CARGO_PKG_VERSION")`.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            summary: String::new(),
            licence: "Apache-2.0".to_owned(),
            operations: Vec::new(),
            settings_schema: r#"{"type":"object","additionalProperties":false}"#.to_owned(),
            settings_version: 1,
            token_formats_read: Vec::new(),
            token_format_written: String::new(),
            capabilities: Vec::new(),
            all_classes: false,
        }
    }

    /// One sentence: what it connects to.
    #[must_use]
    pub fn summary(mut self, summary: &str) -> Self {
        self.summary = summary.to_owned();
        self
    }

    /// An SPDX expression.
    #[must_use]
    pub fn licence(mut self, licence: &str) -> Self {
        self.licence = licence.to_owned();
        self
    }

    /// What it really does. Nothing else is called.
    #[must_use]
    pub fn operations(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations = operations.into_iter().collect();
        self
    }

    /// The JSON Schema (2020-12) of the settings, mostly `include_str!("../settings.schema.json")`.
    #[must_use]
    pub fn settings_schema(mut self, schema: &str) -> Self {
        self.settings_schema = schema.to_owned();
        self
    }

    /// Counts up when older settings need [`migrate_settings`](crate::Connector::migrate_settings).
    #[must_use]
    pub fn settings_version(mut self, version: u32) -> Self {
        self.settings_version = version;
        self
    }

    /// The format of the tokens that it writes; it reads it too.
    #[must_use]
    pub fn token_format(mut self, format: &str) -> Self {
        self.token_format_written = format.to_owned();
        self.reads_token_format(format)
    }

    /// An older format that it still reads.
    #[must_use]
    pub fn reads_token_format(mut self, format: &str) -> Self {
        self.token_formats_read.push(format.to_owned());
        self
    }

    /// Asks for something outside the sandbox, and says why.
    #[must_use]
    pub fn needs(self, capability: Capability, reason: &str) -> Self {
        self.asks(capability, reason, false)
    }

    /// Asks for something that it works without.
    #[must_use]
    pub fn can_use(self, capability: Capability, reason: &str) -> Self {
        self.asks(capability, reason, true)
    }

    /// `sync` accepts `__ALL__`.
    #[must_use]
    pub fn all_classes(mut self) -> Self {
        self.all_classes = true;
        self
    }

    fn asks(mut self, capability: Capability, reason: &str, optional: bool) -> Self {
        self.capabilities.push(CapabilityRequest { capability, reason: reason.to_owned(), optional });
        self
    }
}

impl ObjectClass {
    /// A class without attributes: changes by token, whole objects, no deletes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            attributes: Vec::new(),
            reports_deletes: false,
            whole_objects: true,
            changes: ChangeFeed::ByToken,
        }
    }

    /// With an attribute of one value.
    #[must_use]
    pub fn with(self, name: impl Into<String>, value_type: ValueType) -> Self {
        self.with_flags(name, value_type, AttributeFlags::empty())
    }

    /// With an attribute that is more than that.
    #[must_use]
    pub fn with_flags(mut self, name: impl Into<String>, value_type: ValueType, properties: AttributeFlags) -> Self {
        self.attributes.push(AttributeInfo { name: name.into(), value_type, properties });
        self
    }

    /// Deletions come as deltas.
    #[must_use]
    pub fn reports_deletes(mut self, reports: bool) -> Self {
        self.reports_deletes = reports;
        self
    }

    /// Deltas carry only what changed.
    #[must_use]
    pub fn partial_objects(mut self) -> Self {
        self.whole_objects = false;
        self
    }

    /// The host finds the changes itself, with `search`.
    #[must_use]
    pub fn by_comparison(mut self) -> Self {
        self.changes = ChangeFeed::ByComparison;
        self
    }
}
