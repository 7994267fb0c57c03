//! A connection's settings: whether they are what its connector's schema says, and for which version of that they were written.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::text::{hex, shown};

use super::session::Source;
use crate::config::ConnectionConfig;

/// So many things that are wrong are told.
const PROBLEMS_TOLD: usize = 5;
/// More of one isn't shown.
const PROBLEM_BYTES_MAX: usize = 300;
/// A schema has no more of them.
const PATTERNS_MAX: usize = 100;
/// What one of them becomes is no larger, in bytes.
const PATTERN_MEMORY_MAX: usize = 256 * 1024;
/// The bytes of a schema times those of settings: more would be looked at for more than a second.
const CHECK_WORK_MAX: usize = 1 << 30;
/// The same, for what is wrong with them: an error is made for every part of the one by every part of the other (measured: 7 bytes of memory for each).
const TELL_WORK_MAX: usize = 1 << 24;
/// So many bytes of a hash tell settings from others.
const HASH_BYTES: usize = 16;

/// Settings as an operator wrote them, and the version of the connector's settings that they were written for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenFor {
    /// Of them, in hexadecimal.
    pub hash: String,
    /// As in `connector-info`.
    pub version: u32,
}

impl WrittenFor {
    pub(crate) fn new(settings: &Json, version: u32) -> Self {
        Self { hash: hex(&Sha256::digest(settings.to_string())[..HASH_BYTES]), version }
    }

    /// The version that these settings are known to be for, if they are those.
    pub(crate) fn version_of(&self, settings: &Json) -> Option<u32> {
        (*self == Self::new(settings, self.version)).then_some(self.version)
    }
}

/// A connector's schema of its settings, made ready.
pub(crate) struct Schema {
    validator: Validator,
    bytes: usize,
}

/// What is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Of which of them, as in `servers.1.port`; empty: of all.
    pub at: String,
    /// What. Has no value of them, which may be a secret.
    pub what: String,
}

impl Schema {
    /// Reads it.
    ///
    /// # Errors
    /// It is no schema, or one that would take too much to work with.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let schema: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if patterns(&schema) > PATTERNS_MAX {
            return Err(format!("it has more than {PATTERNS_MAX} patterns"));
        }
        // They take time that is linear in what they look at.
        let patterns = PatternOptions::regex().size_limit(PATTERN_MEMORY_MAX);
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(|error| {
            format!("{}: {}", error.instance_path(), shown(&error.masked().to_string(), PROBLEM_BYTES_MAX))
        })?;
        Ok(Self { validator, bytes: text.len() })
    }

    /// Whether settings are what a connector works with.
    ///
    /// # Errors
    /// What is wrong with them, the first few.
    pub(crate) fn check(&self, settings: &Json) -> Result<(), Vec<SettingsProblem>> {
        let of_all = |what: &str| Err(vec![SettingsProblem { at: String::new(), what: what.to_owned() }]);
        // Every part of one may be held against every part of the other.
        let work = self.bytes.saturating_mul(settings.to_string().len());
        if work > CHECK_WORK_MAX {
            return of_all("they are too long for a schema of this length");
        }
        if self.validator.is_valid(settings) {
            return Ok(());
        }
        if work > TELL_WORK_MAX {
            return of_all("they are not what the schema says, and too long to say where");
        }
        let problem = |error: jsonschema::ValidationError<'_>| SettingsProblem {
            at: error.instance_path().to_string().trim_start_matches('/').replace('/', "."),
            what: error.masked().to_string(),
        };
        Err(self.validator.iter_errors(settings).take(PROBLEMS_TOLD).map(problem).collect())
    }
}

fn patterns(schema: &Json) -> usize {
    match schema {
        Json::Object(object) => {
            let of = |(key, value): (&String, &Json)| {
                let here = match (key.as_str(), value) {
                    ("pattern", Json::String(_)) => 1,
                    ("patternProperties", Json::Object(by_pattern)) => by_pattern.len(),
                    _ => 0,
                };
                here + patterns(value)
            };
            object.iter().map(of).sum()
        }
        Json::Array(items) => items.iter().map(patterns).sum(),
        _ => 0,
    }
}

/// Settings as a connector gets them.
pub(crate) struct Fitting {
    /// What was made of those that were written for an older version; none: they are as they were written.
    pub(crate) migrated: Option<Json>,
    pub(crate) written_for: WrittenFor,
}

impl Fitting {
    /// Makes settings that a connector works with of those that were written, maybe for an older version of it.
    ///
    /// # Errors
    /// What is wrong with them, or why it can't.
    pub(crate) async fn of(
        written: &ConnectionConfig,
        source: &dyn Source,
        known: Option<&WrittenFor>,
    ) -> Result<Self, String> {
        let settings = &written.settings;
        let has = source.info().settings_version;
        let known = known.and_then(|known| known.version_of(settings));
        let version = written.settings_version.or(known).unwrap_or(has);
        let for_older =
            |problem| format!("its settings are written for version {version} of them, and it has {has}: {problem}");
        let migrated = match version.cmp(&has) {
            Ordering::Equal => None,
            Ordering::Greater => return Err(for_older("it can't know those".to_owned())),
            Ordering::Less => {
                let migrated = source.migrate_settings(version, &settings.to_string()).await;
                let migrated = migrated.map_err(|failure| for_older(format!("migrate-settings: {failure}")))?;
                let read = serde_json::from_str(&migrated);
                Some(read.map_err(|error| for_older(format!("migrate-settings: {error}")))?)
            }
        };
        match (source.check_settings(migrated.as_ref().unwrap_or(settings)), &migrated) {
            (Ok(()), _) => Ok(Self { written_for: WrittenFor::new(settings, version), migrated }),
            (Err(problems), None) => Err(told(&problems, &written.setting_lines)),
            (Err(problems), Some(_)) => {
                let problems = told(&problems, &BTreeMap::new());
                Err(for_older(format!("what it makes of them is not valid: {problems}")))
            }
        }
    }
}

/// With the line of each setting that is written.
fn told(problems: &[SettingsProblem], lines: &BTreeMap<String, usize>) -> String {
    let told = |SettingsProblem { at, what }: &SettingsProblem| {
        let line = lines.get(at.split('.').next().unwrap_or_default());
        let line = line.map_or(String::new(), |line| format!(" (line {line})"));
        let name = if at.is_empty() { "settings".to_owned() } else { format!("settings.{at}") };
        shown(&format!("{name}{line}: {what}"), PROBLEM_BYTES_MAX)
    };
    problems.iter().map(told).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_settings_is_told_by_its_place_and_without_its_value() {
        let lines = BTreeMap::from([("servers".to_owned(), 7)]);
        let schema = json!({
            "type": "object", "required": ["folder"], "additionalProperties": false,
            "properties": {
                "folder": { "type": "string" },
                "password": { "type": "string", "pattern": "^[a-z]+$" },
                "servers": { "type": "array", "items": { "type": "object", "properties": { "port": { "type": "integer" } } } }
            }
        });
        let read = Schema::new(&schema.to_string()).unwrap();
        let problems =
            |settings: Json| read.check(&settings).map_or_else(|problems| told(&problems, &lines), |()| String::new());
        assert_eq!(problems(json!({ "folder": "a", "password": "abc", "servers": [{ "port": 1 }] })), "");
        let told = problems(json!({ "password": "S3CRET", "servers": [{}, { "port": "x" }], "foldr": "a" }));
        for part in [
            "settings: \"folder\" is a required property",
            "settings.servers.1.port (line 7): ",
            "settings.password: ",
            "'foldr' was unexpected",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("S3CRET"), "{told}");
    }

    #[test]
    fn a_schema_takes_no_more_than_its_length_allows() {
        for schema in [
            json!({ "type": "nonsense" }),
            // It could take for ever.
            json!({ "pattern": "(?=a)" }),
            json!({ "pattern": "(a{100}){100}" }),
            json!({ "allOf": (0..101).map(|n| json!({ "pattern": n.to_string() })).collect::<Vec<_>>() }),
            json!({ "patternProperties": (0..101).map(|n| (n.to_string(), json!({}))).collect::<serde_json::Map<_, _>>() }),
        ] {
            assert!(Schema::new(&schema.to_string()).is_err(), "{schema}");
        }
        let wide = json!({ "items": { "anyOf": (0..10_000).map(|n| json!({ "const": n })).collect::<Vec<_>>() } });
        let wide = Schema::new(&wide.to_string()).unwrap();
        let items = |count: usize| Json::Array(vec![json!("x"); count]);
        let what = |settings: Json| wide.check(&settings).unwrap_err().remove(0);
        assert_eq!(what(items(1)).at, "0");
        assert!(what(items(1000)).what.contains("too long to say where"));
        assert!(what(items(10_000)).what.contains("too long for a schema"));
    }

    #[test]
    fn settings_are_known_again_until_they_are_changed() {
        let written = WrittenFor::new(&json!({ "a": 1 }), 3);
        assert_eq!(written.version_of(&json!({ "a": 1 })), Some(3));
        assert_eq!(written.version_of(&json!({ "a": 2 })), None);
    }
}
