//! A connection's settings: whether they are what its connector's schema says, and for which version of that they were written.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::text::{hex, shown};

use super::session::Source;
use crate::config::ConnectionConfig;
use crate::wasm::SettingsProblem;

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
    use crate::wasm::SettingsSchema;

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
        let read = SettingsSchema::new(&schema.to_string()).unwrap();
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
    fn settings_are_known_again_until_they_are_changed() {
        let written = WrittenFor::new(&json!({ "a": 1 }), 3);
        assert_eq!(written.version_of(&json!({ "a": 1 })), Some(3));
        assert_eq!(written.version_of(&json!({ "a": 2 })), None);
    }
}
