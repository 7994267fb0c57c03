//! What operators write about logins and secrets: `[credentials.NAME]` and `[secrets.NAME]` of a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidewaiter_core::grant::destination::{Destination, Host, Scheme};

use crate::egress::{Credential, Kind, OAuth};
use crate::secret::Source;

/// Where a secret is: one of the three.
#[derive(Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct SourceTable(Sources);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sources {
    file: Option<PathBuf>,
    env: Option<String>,
    command: Option<Vec<String>>,
}

/// One of these.
const SOURCES: &str = "{ file = \"…\" }, { env = \"…\" } or { command = [\"…\"] }";

impl TryFrom<toml::Value> for SourceTable {
    type Error = String;

    /// Says nothing of the value: it may be the secret itself, written where its place belongs.
    fn try_from(value: toml::Value) -> Result<Self, String> {
        let wrong = |_| format!("a secret is not written into this file, but where it is: {SOURCES}");
        value.try_into().map(Self).map_err(wrong)
    }
}

impl SourceTable {
    /// Relative files begin at `base`.
    pub(super) fn source(self, base: &Path) -> Result<Source, String> {
        match (self.0.file, self.0.env, self.0.command) {
            (Some(file), None, None) => Ok(Source::File(base.join(file))),
            (None, Some(name), None) if !name.is_empty() => Ok(Source::Env(name)),
            (None, None, Some(words)) if !words.is_empty() => Ok(Source::Command(words)),
            _ => Err(format!("it is one of {SOURCES}")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub(super) enum CredentialTable {
    Basic {
        to: Vec<String>,
        user: String,
        password: SourceTable,
    },
    Bearer {
        to: Vec<String>,
        token: SourceTable,
    },
    Header {
        to: Vec<String>,
        name: String,
        value: SourceTable,
    },
    #[serde(rename = "oauth2-client")]
    OAuthClient {
        to: Vec<String>,
        token_url: String,
        client_id: String,
        client_secret: SourceTable,
        scope: Option<String>,
        audience: Option<String>,
        #[serde(default)]
        client_in: ClientIn,
    },
    #[serde(rename = "oauth2-refresh")]
    OAuthRefresh {
        to: Vec<String>,
        token_url: String,
        client_id: String,
        client_secret: Option<SourceTable>,
        refresh_token: SourceTable,
        scope: Option<String>,
        #[serde(default)]
        client_in: ClientIn,
    },
    Mtls {
        to: Vec<String>,
        certificate: PathBuf,
        key: SourceTable,
    },
}

/// Where a token endpoint looks for the client's name.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ClientIn {
    #[default]
    Header,
    Body,
}

impl CredentialTable {
    fn credential(self, name: String, base: &Path) -> Result<Credential, String> {
        let source = |table: SourceTable, key: &str| table.source(base).map_err(|problem| format!("{key}: {problem}"));
        let (to, kind) = match self {
            Self::Basic { user, .. } if user.contains(':') => return Err("user: a colon would end it".into()),
            Self::Basic { to, user, password } => (to, Kind::Basic { user, password: source(password, "password")? }),
            Self::Bearer { to, token } => (to, Kind::Bearer { token: source(token, "token")? }),
            Self::Header { to, name, value } => {
                let name = name.parse().map_err(|_| format!("name: {name:?} is not the name of a header"))?;
                if is_of_the_wire(&name) {
                    return Err(format!("name: {name} is set by the host"));
                }
                (to, Kind::Header { name, value: source(value, "value")? })
            }
            Self::OAuthClient { to, token_url, client_id, client_secret, scope, audience, client_in } => {
                let client_secret = Some(source(client_secret, "client-secret")?);
                let (token_url, in_body) = (endpoint(&token_url)?, client_in == ClientIn::Body);
                let refresh_token = None;
                (
                    to,
                    Kind::OAuth(OAuth { token_url, client_id, client_secret, in_body, scope, audience, refresh_token }),
                )
            }
            Self::OAuthRefresh { to, token_url, client_id, client_secret, refresh_token, scope, client_in } => {
                let client_secret = client_secret.map(|table| source(table, "client-secret")).transpose()?;
                let refresh_token = Some(source(refresh_token, "refresh-token")?);
                let (token_url, in_body) = (endpoint(&token_url)?, client_in == ClientIn::Body);
                let audience = None;
                (
                    to,
                    Kind::OAuth(OAuth { token_url, client_id, client_secret, in_body, scope, audience, refresh_token }),
                )
            }
            Self::Mtls { to, certificate, key } => {
                (to, Kind::Mtls { certificate: base.join(certificate), key: source(key, "key")? })
            }
        };
        // A client certificate is shown over TCP, too.
        let is_tcp = |text: &str| matches!(kind, Kind::Mtls { .. }) && !text.contains("://");
        let read = |text: &String| if is_tcp(text) { Destination::tcp(text) } else { text.parse() };
        let to = to.iter().map(read).collect::<Result<Vec<_>, _>>();
        let to = to.map_err(|error| format!("to: {error}"))?;
        match to.is_empty() {
            true => Err("to: it is bound to nothing, and would never be used".into()),
            false => Ok(Credential { name, to, kind }),
        }
    }
}

/// Headers that say how a message is carried and not what it says.
fn is_of_the_wire(name: &http::HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "proxy-authorization",
    ];
    NAMES.contains(&name.as_str())
}

/// A token endpoint gets secrets: over TLS, or on this machine.
fn endpoint(text: &str) -> Result<http::Uri, String> {
    let uri: http::Uri = text.parse().map_err(|error| format!("token-url: {error}"))?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let to = Destination::parse(uri.scheme_str().unwrap_or_default(), authority);
    let to = to.map_err(|error| format!("token-url: {}", error.problem()))?;
    let is_here = matches!(to.host, Host::Ip(address) if address.is_loopback());
    match to.scheme == Scheme::Https || is_here {
        true => Ok(uri),
        false => Err("token-url: it would send secrets in clear; it begins with https://".to_owned()),
    }
}

/// All of a connection, in the order of their names.
pub(super) fn credentials(tables: BTreeMap<String, CredentialTable>, base: &Path) -> Result<Vec<Credential>, String> {
    let mut all = Vec::new();
    let mut taken = BTreeSet::new();
    for (name, table) in tables {
        let at = format!("credentials.{name}");
        let credential = table.credential(name, base).map_err(|problem| format!("{at}.{problem}"))?;
        let header = credential.kind.header().map(ToString::to_string);
        for to in &credential.to {
            if !taken.insert((to.clone(), header.clone())) {
                let what = header.as_deref().map_or("client certificate", |_| "login in the same header");
                return Err(format!("{at}.to: {to} has another {what} already"));
            }
        }
        all.push(credential);
    }
    Ok(all)
}
