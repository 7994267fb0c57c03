//! Ask and grant: what a connector asked for, what the operator granted, and what follows.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use crate::schema::{Capability, CapabilityRequest};

/// Why a capability is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Asked for and granted.
    Granted,
    /// Asked for, not granted.
    NotGranted,
    /// This host can't give that at all.
    NotAvailable,
}

/// A capability that was asked for, with the settings put in, and what was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// What exactly is asked for.
    pub capability: Capability,
    /// Why, in the connector's words.
    pub reason: String,
    /// The connector works without it.
    pub optional: bool,
    /// What was decided.
    pub decision: Decision,
}

/// A template that can't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capability {template:?} needs the setting {setting:?}, which is {problem}")]
pub struct BadTemplate {
    template: String,
    setting: String,
    problem: &'static str,
}

/// Puts the settings into what a connector asks for. A setting that is a list asks once for each item; one that is absent asks
/// for nothing if the request is optional.
///
/// # Errors
/// A template that names a setting which is absent or is not a text.
pub fn expand(requests: &[CapabilityRequest], settings: &Json) -> Result<Vec<CapabilityRequest>, BadTemplate> {
    let mut expanded = Vec::new();
    for request in requests {
        let (Capability::Http(template)
        | Capability::Tcp(template)
        | Capability::Read(template)
        | Capability::Write(template)
        | Capability::Reveal(template)) = &request.capability;
        let texts = match fill(template, settings) {
            Err(BadTemplate { problem: ABSENT, .. }) if request.optional => Vec::new(),
            other => other?,
        };
        let with = |text| CapabilityRequest { capability: same_kind(&request.capability, text), ..request.clone() };
        expanded.extend(texts.into_iter().map(with));
    }
    Ok(expanded)
}

const ABSENT: &str = "not set";

fn same_kind(capability: &Capability, text: String) -> Capability {
    match capability {
        Capability::Http(_) => Capability::Http(text),
        Capability::Tcp(_) => Capability::Tcp(text),
        Capability::Read(_) => Capability::Read(text),
        Capability::Write(_) => Capability::Write(text),
        Capability::Reveal(_) => Capability::Reveal(text),
    }
}

fn fill(template: &str, settings: &Json) -> Result<Vec<String>, BadTemplate> {
    let mut texts = vec![String::new()];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{settings.") {
        let (setting, after) = after.split_once('}').unwrap_or((after, ""));
        let bad = |problem| BadTemplate { template: template.into(), setting: setting.into(), problem };
        let values: Vec<&Json> = match settings.get(setting) {
            None | Some(Json::Null) => return Err(bad(ABSENT)),
            Some(Json::Array(items)) => items.iter().collect(),
            Some(one) => vec![one],
        };
        let text = |value: &Json| match value {
            Json::String(text) => Ok(text.clone()),
            Json::Number(number) => Ok(number.to_string()),
            _ => Err(bad("neither a text nor a number")),
        };
        let values = values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        texts = texts.iter().flat_map(|head| values.iter().map(move |v| format!("{head}{before}{v}"))).collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

/// Whether one of the granted folders is this one or holds it. All paths absolute and without links.
pub fn allows(granted: &[PathBuf], asked: &Path) -> bool {
    let plain = asked.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && granted.iter().any(|folder| asked.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(template: &str, optional: bool) -> CapabilityRequest {
        CapabilityRequest { capability: Capability::Read(template.into()), reason: "why".into(), optional }
    }

    fn expanded(template: &str, optional: bool, settings: &Json) -> Result<Vec<Capability>, BadTemplate> {
        Ok(expand(&[read(template, optional)], settings)?.into_iter().map(|request| request.capability).collect())
    }

    #[test]
    fn fills_templates_from_settings() {
        let settings = json!({ "folder": "/srv/hr", "names": ["a", "b"], "deep": {} });
        let folder = |text: &str| Capability::Read(text.into());
        assert_eq!(expanded("{settings.folder}/in", false, &settings).unwrap(), [folder("/srv/hr/in")]);
        assert_eq!(expanded("/x/{settings.names}", false, &settings).unwrap(), [folder("/x/a"), folder("/x/b")]);
        assert_eq!(expanded("{settings.gone}", true, &settings).unwrap(), []);
        assert!(
            expanded("{settings.gone}", false, &settings)
                .unwrap_err()
                .to_string()
                .contains("\"gone\", which is not set")
        );
        assert!(expanded("{settings.deep}", true, &settings).is_err());
    }

    #[test]
    fn a_granted_folder_allows_itself_and_what_is_below() {
        let granted = [PathBuf::from("/srv/hr")];
        assert!(allows(&granted, Path::new("/srv/hr")));
        assert!(allows(&granted, Path::new("/srv/hr/2026")));
        for outside in ["/srv", "/srv/hrx", "/srv/hr/../secret", "srv/hr", "/"] {
            assert!(!allows(&granted, Path::new(outside)), "{outside}");
        }
        assert!(!allows(&[], Path::new("/srv/hr")));
    }
}
