//! A connection's settings: whether they are what its connector's schema says, and for which version of that they were written.

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::schema::ConnectorInfo;
use tidewaiter_core::text::{hex, shown};

/// So many things that are wrong are told.
const PROBLEMS_TOLD: usize = 5;
/// More of one isn't shown.
const PROBLEM_BYTES_MAX: usize = 300;
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

/// What looks at settings by a schema.
///
/// # Errors
/// It is no schema.
pub(crate) fn validator(schema: &str) -> Result<Validator, String> {
    let schema: Json = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    // Patterns of a connector take time that is linear in what they look at.
    let options = jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(PatternOptions::regex());
    let validator = options.build(&schema);
    validator.map_err(|error| {
        format!("{}: {}", error.instance_path(), shown(&error.masked().to_string(), PROBLEM_BYTES_MAX))
    })
}

/// Whether settings are what a connector works with. Values aren't shown: they may be secrets.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(info: &ConnectorInfo, settings: &Json) -> Result<(), String> {
    let validator = validator(&info.settings_schema).map_err(|problem| format!("settings-schema: {problem}"))?;
    let problem = |error: jsonschema::ValidationError<'_>| {
        let path = error.instance_path().to_string();
        let path = path.trim_start_matches('/').replace('/', ".");
        let name = if path.is_empty() { "settings".to_owned() } else { format!("settings.{path}") };
        shown(&format!("{name}: {}", error.masked()), PROBLEM_BYTES_MAX)
    };
    let problems: Vec<String> = validator.iter_errors(settings).take(PROBLEMS_TOLD).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_settings_is_told_by_its_place_and_without_its_value() {
        let schema = json!({
            "type": "object", "required": ["folder"], "additionalProperties": false,
            "properties": {
                "folder": { "type": "string" },
                "password": { "type": "string", "pattern": "^[a-z]+$" },
                "servers": { "type": "array", "items": { "type": "object", "properties": { "port": { "type": "integer" } } } }
            }
        });
        let problems = |settings: Json| {
            let errors = validator(&schema.to_string()).unwrap();
            let valid = errors.is_valid(&settings);
            let info = ConnectorInfo { settings_schema: schema.to_string(), ..info() };
            let checked = check(&info, &settings);
            assert_eq!(checked.is_ok(), valid);
            checked.err().unwrap_or_default()
        };
        assert_eq!(problems(json!({ "folder": "a", "password": "abc", "servers": [{ "port": 1 }] })), "");
        let told = problems(json!({ "password": "S3CRET", "servers": [{}, { "port": "x" }], "foldr": "a" }));
        for part in [
            "settings: \"folder\" is a required property",
            "settings.servers.1.port: ",
            "settings.password: ",
            "'foldr' was unexpected",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("S3CRET"), "{told}");
        assert!(validator("{\"type\": \"nonsense\"}").is_err());
        assert!(validator("{\"pattern\": \"(?=a)\"}").is_err(), "it could take for ever");
    }

    #[test]
    fn settings_are_known_again_until_they_are_changed() {
        let written = WrittenFor::new(&json!({ "a": 1 }), 3);
        assert_eq!(written.version_of(&json!({ "a": 1 })), Some(3));
        assert_eq!(written.version_of(&json!({ "a": 2 })), None);
    }

    fn info() -> ConnectorInfo {
        ConnectorInfo {
            name: "csv".into(),
            version: String::new(),
            summary: String::new(),
            licence: String::new(),
            operations: vec![],
            settings_schema: String::new(),
            settings_version: 1,
            token_formats_read: vec![],
            token_format_written: String::new(),
            capabilities: vec![],
            all_classes: false,
        }
    }
}
