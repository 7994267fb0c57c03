//! What a connector's schema says of its settings. It is the guest's, and settings may be what the guest made of others: looking at the one by the other has bounds.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value as Json;
use tidewaiter_core::text::shown;

/// So many things that are wrong are told.
const PROBLEMS_TOLD: usize = 5;
/// A schema has no more of them.
const PATTERNS_MAX: usize = 100;
/// What one of them becomes is no larger, in bytes.
const PATTERN_MEMORY_MAX: usize = 256 * 1024;
/// The bytes of a schema times those of settings: so many are looked at in less than a tenth of a second (measured).
const CHECK_WORK_MAX: usize = 1 << 30;
/// The same, for what is wrong with them: an error is made for every part of the one by every part of the other (measured: 7 bytes of memory for each).
const TELL_WORK_MAX: usize = 1 << 24;
/// More of what is wrong with a schema isn't shown.
const PROBLEM_BYTES_MAX: usize = 300;

/// A connector's schema of its settings, made ready.
pub(crate) struct SettingsSchema {
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

impl SettingsSchema {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            assert!(SettingsSchema::new(&schema.to_string()).is_err(), "{schema}");
        }
        let wide = json!({ "items": { "anyOf": (0..10_000).map(|n| json!({ "const": n })).collect::<Vec<_>>() } });
        let wide = SettingsSchema::new(&wide.to_string()).unwrap();
        let items = |count: usize| Json::Array(vec![json!("x"); count]);
        let what = |settings: Json| wide.check(&settings).unwrap_err().remove(0);
        assert_eq!(what(items(1)).at, "0");
        assert!(what(items(1000)).what.contains("too long to say where"));
        assert!(what(items(10_000)).what.contains("too long for a schema"));
    }
}
