//! Ask and grant: what a connector asked for, what the operator granted, what the ceiling leaves of it, and what follows. Effective is
//! what all three have, and of what an update asks for beyond its predecessor what is approved.

pub mod address;
pub mod approval;
pub mod destination;
pub mod policy;

use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value as Json;

use self::destination::{BadDestination, Pattern};
use self::policy::{EgressGrant, EgressPolicy, Foreseen};
use crate::schema::{Capability, CapabilityRequest};

/// What a file of grants allows to one connection, or the ceiling to all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Folders that may be read. Absolute.
    pub read: Vec<PathBuf>,
    /// Where HTTP requests and TCP connections may go.
    pub egress: Vec<EgressGrant>,
    /// Secrets that may be seen.
    pub reveal: Vec<String>,
}

impl Grants {
    /// Whether everything that `other` has is here, too, as it is written.
    pub fn has_all_of(&self, other: &Self) -> bool {
        let Self { read, egress, reveal } = other;
        let (reads, sends) = (|one| self.read.contains(one), |one| self.egress.contains(one));
        read.iter().all(reads) && egress.iter().all(sends) && reveal.iter().all(|one| self.reveal.contains(one))
    }
}

/// Why a capability is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Asked for and granted.
    Granted,
    /// Asked for, and some of it granted.
    InPart,
    /// Asked for, not granted.
    NotGranted,
    /// Granted, but beyond the ceiling.
    BeyondCeiling,
    /// An update asks for it, and nobody has approved that yet.
    AwaitsApproval,
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
    /// The entries of the file of grants that have a part in it; where it awaits approval, what it stands for now.
    pub by: Vec<String>,
}

/// What is asked for can't be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAsk {
    /// A template that can't be filled in.
    #[error(transparent)]
    Template(#[from] BadTemplate),
    /// Sending to what is no destination.
    #[error("the capability {kind} asks for {source}")]
    Destination {
        /// `http` or `tcp`.
        kind: &'static str,
        /// What is wrong with it.
        source: BadDestination,
    },
}

/// A template that can't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capability {template:?} needs the setting {setting:?}, which is {problem}")]
pub struct BadTemplate {
    template: String,
    setting: String,
    problem: &'static str,
}

/// Destinations, folders or secrets that one request may stand for.
const TEXTS_MAX: usize = 1000;
/// The longest text of one, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Puts the settings into what a connector asks for. A setting that is a list asks once for each item; one that is absent asks
/// for nothing if the request is optional.
///
/// # Errors
/// A template that names a setting which is absent or is not a text.
pub fn expand(requests: &[CapabilityRequest], settings: &Json) -> Result<Vec<CapabilityRequest>, BadTemplate> {
    let mut expanded = Vec::new();
    for request in requests {
        let texts = match fill(request.capability.text(), settings) {
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
            _ => Err(bad("neither a text nor a number, or a secret")),
        };
        let values = values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
        if texts.len().saturating_mul(values.len()) > TEXTS_MAX {
            return Err(bad("one of so many lists that there are more than 1000 to ask for"));
        }
        if longest(&texts) + before.len() + longest(&values) > TEXT_BYTES_MAX {
            return Err(bad("longer than what can be asked for"));
        }
        texts = texts.iter().flat_map(|head| values.iter().map(move |v| format!("{head}{before}{v}"))).collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

/// What is asked for over HTTP and TCP.
///
/// # Errors
/// The first that is no destination.
pub fn asked_egress(requests: &[CapabilityRequest]) -> Result<Vec<Pattern>, BadAsk> {
    let asked = requests.iter().filter_map(|request| Some((request, destination(&request.capability)?)));
    let named = |(request, pattern): (&CapabilityRequest, Result<_, _>)| {
        pattern.map_err(|source| BadAsk::Destination { kind: request.capability.kind(), source })
    };
    asked.map(named).collect()
}

/// Where something is to be sent that is asked for; none: it is something else. A setting that is a URL with a path asks for its host.
pub fn destination(capability: &Capability) -> Option<Result<Pattern, BadDestination>> {
    match capability {
        Capability::Http(text) => Some(without_path(text).parse()),
        Capability::Tcp(text) => Some(Pattern::tcp(text)),
        Capability::Read(_) | Capability::Write(_) | Capability::Reveal(_) => None,
    }
}

/// A URL up to its host and port.
pub fn without_path(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

impl Decided {
    /// What is not looked at before it is approved: as the connector asks for it, because that is what will be approved, with what it
    /// stands for now.
    pub fn awaiting(request: &CapabilityRequest, settings: &Json) -> Self {
        let CapabilityRequest { capability, reason, optional } = request.clone();
        let by = match fill(capability.text(), settings) {
            Ok(texts) => texts.into_iter().filter(|text| text != capability.text()).collect(),
            Err(problem) => vec![format!("nothing: {problem}")],
        };
        Self { capability, reason, optional, decision: Decision::AwaitsApproval, by }
    }
}

/// Decides about one request. `granted` and `ceiling` have their folders without links; `folder` is where an asked-for folder is, if
/// it is there.
pub fn decide(
    request: CapabilityRequest,
    folder: Option<&Path>,
    granted: &Grants,
    ceiling: Option<&Grants>,
) -> Decided {
    let CapabilityRequest { capability, reason, optional } = request;
    let (decision, by) = match &capability {
        Capability::Read(_) => {
            let holder = |grants: &Grants| folder.and_then(|folder| holder(&grants.read, folder).cloned());
            both(
                holder(granted).map(|path| path.display().to_string()),
                ceiling.map(|ceiling| holder(ceiling).is_some()),
            )
        }
        Capability::Reveal(name) => {
            let named = |grants: &Grants| grants.reveal.contains(name);
            both(named(granted).then(|| name.clone()), ceiling.map(named))
        }
        Capability::Http(_) | Capability::Tcp(_) | Capability::Write(_) => match destination(&capability) {
            Some(Ok(pattern)) => {
                let (granted, ceiling) = (granted.egress.clone(), ceiling.map(|ceiling| ceiling.egress.clone()));
                foreseen(EgressPolicy { granted, ceiling, ..EgressPolicy::default() }.foresee(&pattern))
            }
            Some(Err(_)) | None => (Decision::NotAvailable, Vec::new()),
        },
    };
    Decided { capability, reason, optional, decision, by }
}

fn both(by: Option<String>, below: Option<bool>) -> (Decision, Vec<String>) {
    match (by, below) {
        (None, _) => (Decision::NotGranted, Vec::new()),
        (Some(by), Some(false)) => (Decision::BeyondCeiling, vec![by]),
        (Some(by), _) => (Decision::Granted, vec![by]),
    }
}

fn foreseen(foreseen: Foreseen) -> (Decision, Vec<String>) {
    match foreseen {
        Foreseen::Granted { by } => (Decision::Granted, by),
        Foreseen::InPart { by } => (Decision::InPart, by),
        Foreseen::BeyondCeiling { by } => (Decision::BeyondCeiling, by),
        Foreseen::NotGranted => (Decision::NotGranted, Vec::new()),
    }
}

/// The granted folder that is this one or holds it. All paths absolute and without links.
fn holder<'a>(granted: &'a [PathBuf], asked: &Path) -> Option<&'a PathBuf> {
    let plain = asked.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    granted.iter().find(|folder| plain && asked.starts_with(folder))
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
        let settings = json!({ "folder": "/srv/hr", "names": ["a", "b"], "deep": {}, "year": 2026 });
        let folder = |text: &str| Capability::Read(text.into());
        assert_eq!(expanded("{settings.folder}/in", false, &settings).unwrap(), [folder("/srv/hr/in")]);
        assert_eq!(expanded("/x/{settings.names}", false, &settings).unwrap(), [folder("/x/a"), folder("/x/b")]);
        assert_eq!(expanded("/x/{settings.year}", false, &settings).unwrap(), [folder("/x/2026")]);
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
    fn lists_do_not_multiply_without_end() {
        let settings = json!({ "two": ["a", "b"], "long": "x".repeat(3000) });
        let problem = |template: &str| expanded(template, true, &settings).unwrap_err().to_string();
        assert_eq!(expanded(&"{settings.two}".repeat(9), false, &settings).unwrap().len(), 512);
        assert!(problem(&"{settings.two}".repeat(10)).contains("more than 1000 to ask for"));
        assert!(problem(&"{settings.two}".repeat(73)).contains("more than 1000 to ask for"));
        assert!(expanded("{settings.long}", true, &settings).is_ok());
        let exactly = |bytes: usize| format!("{}{{settings.long}}", "/".repeat(bytes - 3000));
        assert!(expanded(&exactly(TEXT_BYTES_MAX), true, &settings).is_ok());
        assert!(expanded(&exactly(TEXT_BYTES_MAX + 1), true, &settings).is_err());
        let ten = json!({ "ten": (0..10).collect::<Vec<_>>() });
        assert_eq!(expanded(&"{settings.ten}".repeat(3), true, &ten).unwrap().len(), TEXTS_MAX);
        assert!(problem("{settings.long}{settings.long}").contains("longer than what can be asked for"));
    }

    fn decided(
        capability: Capability,
        folder: Option<&str>,
        granted: &Grants,
        ceiling: Option<&Grants>,
    ) -> (Decision, Vec<String>) {
        let request = CapabilityRequest { capability, reason: "why".into(), optional: false };
        let decided = decide(request, folder.map(Path::new), granted, ceiling);
        (decided.decision, decided.by)
    }

    #[test]
    fn a_granted_folder_allows_itself_and_what_is_below() {
        let nothing = Grants::default();
        let granted = Grants { read: vec!["/srv/crm".into(), "/srv/hr".into()], ..Grants::default() };
        let read = |folder, ceiling| decided(Capability::Read("x".into()), folder, &granted, ceiling);
        let by = |folder: &str| vec![folder.to_owned()];
        assert_eq!(read(Some("/srv/hr"), None), (Decision::Granted, by("/srv/hr")));
        assert_eq!(read(Some("/srv/hr/2026"), None), (Decision::Granted, by("/srv/hr")));
        for outside in ["/srv", "/srv/hrx", "/srv/hr/../secret", "srv/hr", "/"] {
            assert_eq!(read(Some(outside), None), (Decision::NotGranted, vec![]), "{outside}");
        }
        assert_eq!(read(None, None), (Decision::NotGranted, vec![]));
        assert_eq!(read(Some("/srv/hr"), Some(&nothing)), (Decision::BeyondCeiling, by("/srv/hr")));
        let above = Grants { read: vec!["/srv".into()], ..Grants::default() };
        assert_eq!(read(Some("/srv/hr"), Some(&above)), (Decision::Granted, by("/srv/hr")));
        assert_eq!(read(Some("/other"), Some(&above)), (Decision::NotGranted, vec![]));
    }

    #[test]
    fn a_secret_is_seen_by_name() {
        let nothing = Grants::default();
        let granted = Grants { reveal: vec!["bind".into()], ..Grants::default() };
        let reveal = |name: &str, ceiling| decided(Capability::Reveal(name.into()), None, &granted, ceiling).0;
        assert_eq!(reveal("bind", None), Decision::Granted);
        assert_eq!(reveal("bind2", None), Decision::NotGranted);
        assert_eq!(reveal("bind", Some(&nothing)), Decision::BeyondCeiling);
        assert_eq!(reveal("bind", Some(&granted)), Decision::Granted);
    }

    #[test]
    fn what_awaits_approval_is_not_looked_at() {
        let awaiting = |template| Decided::awaiting(&read(template, true), &json!({ "folder": "/srv" }));
        let one = awaiting("{settings.folder}/hr");
        assert_eq!((one.decision, one.by), (Decision::AwaitsApproval, vec!["/srv/hr".to_owned()]));
        assert_eq!((one.capability, one.optional), (Capability::Read("{settings.folder}/hr".into()), true));
        assert_eq!(awaiting("/srv/hr").by, [""; 0]);
        assert!(awaiting("{settings.gone}").by[0].starts_with("nothing: the capability"), "shown all the same");
    }

    #[test]
    fn http_is_foreseen_and_a_path_does_not_matter() {
        let nothing = Grants::default();
        let entries = ["https://api.example.com".parse(), Pattern::tcp("ldap.corp:636")];
        let egress = entries.map(|to| EgressGrant::to(to.unwrap())).to_vec();
        let granted = Grants { egress, ..Grants::default() };
        let http = |to: &str, ceiling| decided(Capability::Http(to.into()), None, &granted, ceiling).0;
        assert_eq!(http("https://api.example.com/v1?x=/", None), Decision::Granted);
        assert_eq!(without_path("https://a.b/https://c"), "https://a.b");
        assert_eq!(http("https://*.example.com", None), Decision::InPart);
        assert_eq!(http("https://example.com", None), Decision::NotGranted);
        assert_eq!(http("https://api.example.com", Some(&nothing)), Decision::BeyondCeiling);
        assert_eq!(http("ldap://api.example.com", None), Decision::NotAvailable);
        let tcp = |to: &str| decided(Capability::Tcp(to.into()), None, &granted, None).0;
        assert_eq!(tcp("ldap.corp:636"), Decision::Granted);
        assert_eq!(tcp("ldap.corp:389"), Decision::NotGranted);
        for other in [Capability::Tcp("x".into()), Capability::Write("/srv".into())] {
            assert_eq!(decided(other, None, &granted, None).0, Decision::NotAvailable);
        }
        let request = |to: &str| CapabilityRequest {
            capability: Capability::Http(to.into()),
            reason: "why".into(),
            optional: false,
        };
        let asked =
            asked_egress(&[read("x", false), request("https://a.example.com/v1"), request("https://*.b.com#c")]);
        let asked: Vec<String> = asked.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["https://a.example.com", "https://*.b.com"]);
        let error = asked_egress(&[request("example.com/v1")]).unwrap_err().to_string();
        assert_eq!(error, "the capability http asks for \"example.com\": it begins with neither http:// nor https://");
    }
}
