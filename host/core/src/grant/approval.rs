//! Approval: what a connector asked for when its connection was brought up, and what an update of it asks for beyond that. A list of
//! grants may be wider than what a connector needs; so what an update adds has no effect until somebody looked at it.

use serde::{Deserialize, Serialize};

use super::destination;
use crate::name::ConnectorName;
use crate::schema::{Capability, CapabilityRequest};

/// What is approved for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The connector that it is approved for.
    pub connector: ConnectorName,
    /// As the connector asks for it: settings are not put in, so that changing one asks for nothing new.
    pub capabilities: Vec<Capability>,
}

impl Approved {
    /// All that a connector asks for. Whoever brings a connection up, or gives it another connector, grants it by what it asks for then.
    pub fn all(connector: ConnectorName, requests: &[CapabilityRequest]) -> Self {
        let capabilities = requests.iter().map(|request| request.capability.clone()).collect();
        Self { connector, capabilities }
    }

    /// Whether it is approved, or no more than something that is.
    pub fn covers(&self, capability: &Capability) -> bool {
        self.capabilities.iter().any(|approved| match (approved, capability) {
            _ if approved == capability => true,
            (Capability::Http(_), Capability::Http(_)) | (Capability::Tcp(_), Capability::Tcp(_)) => {
                is_narrower(capability, approved)
            }
            _ => false,
        })
    }

    /// What is asked for by one connector and not approved, once each.
    pub fn lacks(&self, requests: &[CapabilityRequest]) -> Vec<Capability> {
        let mut lacking: Vec<Capability> = Vec::new();
        for CapabilityRequest { capability, .. } in requests {
            if !self.covers(capability) && !lacking.contains(capability) {
                lacking.push(capability.clone());
            }
        }
        lacking
    }
}

fn is_narrower(narrow: &Capability, wide: &Capability) -> bool {
    let pattern = |capability| destination(capability)?.ok();
    pattern(wide).zip(pattern(narrow)).is_some_and(|(wide, narrow)| wide.covers(&narrow))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(capability: Capability) -> CapabilityRequest {
        CapabilityRequest { capability, reason: "why".into(), optional: false }
    }

    #[test]
    fn what_an_update_adds_is_not_approved() {
        let http = |text: &str| Capability::Http(text.into());
        let (read, reveal) = (Capability::Read("{settings.folder}".into()), Capability::Reveal("bind".into()));
        let first = [read.clone(), reveal.clone(), http("https://*.example.com"), http("https://{settings.host}")];
        let approved = Approved::all("csv".parse().unwrap(), &first.clone().map(request));
        assert_eq!(approved.lacks(&first.map(request)), []);
        for narrower in ["https://api.example.com", "https://api.example.com/v1", "https://*.eu.example.com"] {
            assert!(approved.covers(&http(narrower)), "{narrower}");
        }
        let wider = [
            http("https://example.com"),
            http("http://api.example.com"),
            http("https://api.example.com:8443"),
            http("https://{settings.other}"),
            http("https://*.com"),
            Capability::Read("{settings.folder}/..".into()),
            Capability::Write("{settings.folder}".into()),
            Capability::Reveal("root".into()),
            Capability::Reveal("https://*.example.com".into()),
            Capability::Tcp("bind".into()),
            Capability::Tcp("api.example.com:443".into()),
        ];
        let twice = [wider.clone(), wider.clone()].concat().into_iter().map(request).collect::<Vec<_>>();
        assert_eq!(approved.lacks(&twice), wider);
    }
}
