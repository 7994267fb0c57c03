//! What a connector says about itself and its source.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::name::{BadName, ConnectorName};

/// The name that asks a connector for every class at once.
pub const ALL_CLASSES: &str = "__ALL__";

/// What a connector really does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `get-latest-sync-token` and `sync`.
    LiveSync,
    /// `search` for all objects.
    Search,
    /// `search` for one uid.
    SearchByUid,
    /// `check`.
    Check,
}

/// Something outside the sandbox that a connector asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// HTTP requests to an authority.
    Http(String),
    /// A TCP connection.
    Tcp(String),
    /// Reading a folder.
    Read(String),
    /// Reading and writing a folder.
    Write(String),
    /// Seeing a secret.
    Reveal(String),
}

impl Capability {
    /// To what.
    pub fn text(&self) -> &str {
        let (Self::Http(text) | Self::Tcp(text) | Self::Read(text) | Self::Write(text) | Self::Reveal(text)) = self;
        text
    }

    /// `http`, `tcp`, `read`, `write` or `reveal`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Reveal(_) => "reveal",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.text())
    }
}

/// A capability asked for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CapabilityRequest {
    /// What. May hold `{settings.NAME}`.
    pub capability: Capability,
    /// Why, in the connector's words.
    pub reason: String,
    /// It works without.
    pub optional: bool,
}

/// Settings with this in the place of those that their schema calls `writeOnly`, at any depth of objects: they are not shown.
pub fn masked(settings: &Json, schema: &Json, mask: &Json) -> Json {
    let Json::Object(members) = settings else { return settings.clone() };
    let mask = |(name, value): (&String, &Json)| {
        let schema = &schema["properties"][name];
        let shown = match schema["writeOnly"].as_bool() {
            Some(true) => mask.clone(),
            _ => masked(value, schema, mask),
        };
        (name.clone(), shown)
    };
    Json::Object(members.iter().map(mask).collect())
}

/// What `describe` answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectorInfo {
    /// Equal to the stem of the file.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// SPDX expression.
    pub licence: String,
    /// What it really does.
    pub operations: Vec<Operation>,
    /// JSON Schema of the settings.
    pub settings_schema: String,
    /// Counts up when older settings need a migration.
    pub settings_version: u32,
    /// Token formats that it understands.
    pub token_formats_read: Vec<String>,
    /// Token format that it writes.
    pub token_format_written: String,
    /// What it asks for.
    pub capabilities: Vec<CapabilityRequest>,
    /// It accepts `__ALL__`.
    pub all_classes: bool,
}

/// Keywords by which a schema of few bytes asks for work without bounds.
const ENDLESS: [&str; 5] = ["$ref", "$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems"];

fn endless(schema: &Json) -> Option<&'static str> {
    match schema {
        Json::Object(object) => {
            let keyword = ENDLESS.into_iter().find(|keyword| object.contains_key(*keyword));
            keyword.or_else(|| object.values().find_map(endless))
        }
        Json::Array(items) => items.iter().find_map(endless),
        _ => None,
    }
}

/// The most capabilities that a connector may ask for.
const CAPABILITIES_MAX: usize = 100;

/// A description that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDescription {
    /// The name is not one.
    #[error("name: {0}")]
    Name(#[from] BadName),
    /// The file says one name and the connector another.
    #[error("it calls itself {said:?}, its file says {file:?}: name the file {said}.wasm")]
    OtherName {
        /// What `describe` said.
        said: String,
        /// The stem of the file.
        file: String,
    },
    /// The settings schema is none.
    #[error("settings-schema is not a JSON Schema: {0}")]
    Schema(String),
    /// Looking at settings by it might not end.
    #[error(
        "settings-schema has {keyword}: the schema of settings is written out, so that looking at them takes no longer than they are"
    )]
    SchemaKeyword {
        /// Which.
        keyword: &'static str,
    },
    /// A text is longer than anyone would read.
    #[error("{field} has {bytes} bytes, more than the {max} allowed")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More than anyone would read before granting them.
    #[error("it asks for {count} capabilities, more than the {CAPABILITIES_MAX} allowed: use templates over settings")]
    TooManyCapabilities {
        /// How many.
        count: usize,
    },
    /// It has no use.
    #[error("operations is empty: the connector does nothing")]
    NoOperation,
}

impl ConnectorInfo {
    /// Checks what a connector said of itself against the name of its file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn verify(&self, file_stem: &ConnectorName) -> Result<(), BadDescription> {
        const TEXT_MAX: usize = 1024;
        const SCHEMA_MAX: usize = 256 * 1024;
        let bounds = [
            ("name", self.name.len(), TEXT_MAX),
            ("version", self.version.len(), TEXT_MAX),
            ("summary", self.summary.len(), TEXT_MAX),
            ("licence", self.licence.len(), TEXT_MAX),
            ("settings-schema", self.settings_schema.len(), SCHEMA_MAX),
        ];
        let asked = self.capabilities.iter().flat_map(|asked| {
            [("capability", asked.capability.text().len(), TEXT_MAX), ("reason", asked.reason.len(), TEXT_MAX)]
        });
        if let Some((field, bytes, max)) = bounds.into_iter().chain(asked).find(|(_, bytes, max)| bytes > max) {
            return Err(BadDescription::TooLong { field, bytes, max });
        }
        if self.capabilities.len() > CAPABILITIES_MAX {
            return Err(BadDescription::TooManyCapabilities { count: self.capabilities.len() });
        }
        let said: ConnectorName = self.name.parse()?;
        if said != *file_stem {
            return Err(BadDescription::OtherName { said: self.name.clone(), file: file_stem.to_string() });
        }
        let schema = serde_json::from_str::<Map<String, Json>>(&self.settings_schema);
        let schema = schema.map_err(|error| BadDescription::Schema(error.to_string()))?;
        if let Some(keyword) = endless(&Json::Object(schema)) {
            return Err(BadDescription::SchemaKeyword { keyword });
        }
        if self.operations.is_empty() {
            return Err(BadDescription::NoOperation);
        }
        Ok(())
    }

    /// Whether the connector does this.
    pub fn does(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }
}

/// The type of an attribute's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the cases of `Value`")]
pub enum ValueType {
    Text,
    Integer,
    Decimal,
    Real,
    Boolean,
    Binary,
    Timestamp,
    Reference,
    Json,
    Secret,
}

/// An attribute that a class declares. The flags are the contract's (`attribute-flags`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the flags are documented in wit/types.wit")]
pub struct AttributeInfo {
    pub name: String,
    pub value_type: ValueType,
    pub multi_valued: bool,
    pub ordered: bool,
    pub case_ignore: bool,
    pub sensitive: bool,
    pub volatile: bool,
    pub required: bool,
    pub not_returned_by_default: bool,
}

impl AttributeInfo {
    /// An attribute with one value and no flags.
    pub fn new(name: &str, value_type: ValueType) -> Self {
        Self {
            name: name.to_owned(),
            value_type,
            multi_valued: false,
            ordered: false,
            case_ignore: false,
            sensitive: false,
            volatile: false,
            required: false,
            not_returned_by_default: false,
        }
    }
}

/// How the host learns of changes in a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeFeed {
    /// By `sync`.
    ByToken,
    /// By reading everything and comparing.
    ByComparison,
}

/// A class that a source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectClassInfo {
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Vec<AttributeInfo>,
    /// Deletions come as deltas.
    pub reports_deletes: bool,
    /// Deltas carry whole objects.
    pub whole_objects: bool,
    /// Where changes come from.
    pub changes: ChangeFeed,
}

/// The classes of a source, ready to check deltas against.
#[derive(Debug, Default)]
pub struct Classes {
    classes: Vec<ObjectClassInfo>,
    /// The names of classes, as they are and in ASCII lower case, to their place.
    places: HashMap<String, usize>,
    /// Per class: the lower-case names of its attributes, to their place.
    attributes: Vec<HashMap<String, usize>>,
}

impl Classes {
    /// Prepares what `object-classes` answered.
    pub fn new(classes: Vec<ObjectClassInfo>) -> Self {
        let names = |class: &ObjectClassInfo| {
            class.attributes.iter().enumerate().map(|(place, a)| (a.name.to_lowercase(), place)).collect()
        };
        // Of two that differ in case only, the one that is named as it is, else the first one.
        let both = |(place, class): (usize, &ObjectClassInfo)| {
            [(class.name.to_ascii_lowercase(), place), (class.name.clone(), place)]
        };
        let places = classes.iter().enumerate().rev().flat_map(both).collect();
        Self { places, attributes: classes.iter().map(names).collect(), classes }
    }

    /// All classes.
    pub fn list(&self) -> &[ObjectClassInfo] {
        &self.classes
    }

    /// The class of this name, without regard to case.
    pub fn class(&self, name: &str) -> Option<&ObjectClassInfo> {
        self.place(name).map(|place| &self.classes[place])
    }

    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        let place = self.places.get(name).or_else(|| self.places.get(&name.to_ascii_lowercase()));
        place.copied()
    }

    /// The declaration of an attribute of the class at a place, with its own place, which is `guess` if attributes come in the
    /// order of their declaration.
    pub(crate) fn attribute(&self, class: usize, name: &str, guess: usize) -> Option<(usize, &AttributeInfo)> {
        let declared = &self.classes[class].attributes;
        if let Some(info) = declared.get(guess).filter(|info| info.name == name) {
            return Some((guess, info));
        }
        let names = &self.attributes[class];
        let place = names.get(name).or_else(|| names.get(&name.to_lowercase()))?;
        Some((*place, &declared[*place]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asking(count: usize, capability: &str, reason: &str) -> ConnectorInfo {
        let asked = CapabilityRequest {
            capability: Capability::Http(capability.into()),
            reason: reason.into(),
            optional: false,
        };
        ConnectorInfo {
            name: "hr".into(),
            version: "1.0.0".into(),
            summary: "Reads".into(),
            licence: "Apache-2.0".into(),
            operations: vec![Operation::LiveSync],
            settings_schema: "{}".into(),
            settings_version: 1,
            token_formats_read: vec!["1".into()],
            token_format_written: "1".into(),
            capabilities: vec![asked; count],
            all_classes: false,
        }
    }

    #[test]
    fn masks_what_is_only_written() {
        let schema = json!({ "properties": {
            "password": { "writeOnly": true }, "server": { "properties": { "key": { "writeOnly": true } } }
        } });
        let settings = json!({ "password": "s", "host": "h", "server": { "key": ["k"], "port": 1 } });
        let shown = masked(&settings, &schema, &"***".into());
        assert_eq!(shown, json!({ "password": "***", "host": "h", "server": { "key": "***", "port": 1 } }));
    }

    #[test]
    fn a_class_is_found_without_regard_to_case_and_among_many() {
        let class = |name: String| ObjectClassInfo {
            name,
            attributes: Vec::new(),
            reports_deletes: false,
            whole_objects: true,
            changes: ChangeFeed::ByToken,
        };
        let names = (0..20_000).map(|number| format!("Class-{number}")).chain(["CLASS-7".to_owned()]);
        let classes = Classes::new(names.map(class).collect());
        for (name, place) in [
            ("Class-7", Some(7)),
            ("cLASS-7", Some(7)),
            ("CLASS-7", Some(20_000)),
            ("class-19999", Some(19_999)),
            ("class-20000", None),
        ] {
            assert_eq!(classes.place(name), place, "{name}");
        }
    }

    #[test]
    fn what_a_connector_says_of_itself_has_bounds() {
        let verified = |info: ConnectorInfo| info.verify(&"hr".parse().unwrap()).map_err(|error| error.to_string());
        let long = "x".repeat(1025);
        assert_eq!(verified(asking(CAPABILITIES_MAX, &long[1..], &long[1..])), Ok(()));
        assert!(
            verified(asking(CAPABILITIES_MAX + 1, "", "")).unwrap_err().starts_with("it asks for 101 capabilities")
        );
        for (info, field) in [
            (asking(1, &long, ""), "capability"),
            (asking(1, "", &long), "reason"),
            (ConnectorInfo { summary: long.clone(), ..asking(0, "", "") }, "summary"),
        ] {
            assert_eq!(verified(info), Err(format!("{field} has 1025 bytes, more than the 1024 allowed")));
        }
        assert!(verified(ConnectorInfo { settings_schema: "[]".into(), ..asking(0, "", "") }).is_err());
        let endless = "{\"properties\": {\"a\": {\"anyOf\": [{\"$ref\": \"#\"}]}}}".into();
        assert!(verified(ConnectorInfo { settings_schema: endless, ..asking(0, "", "") }).is_err());
        assert!(verified(ConnectorInfo { operations: vec![], ..asking(0, "", "") }).is_err());
        assert!(verified(ConnectorInfo { name: "other".into(), ..asking(0, "", "") }).is_err());
    }
}
