//! Which server it is: what kind of one, and which one of its kind. Owns what its root entry is asked for.

use tidewaiter_connector::Error;

use crate::client::{Client, Entry};
use crate::dn::Dn;
use crate::settings::Scope;

const ATTRIBUTES: [&str; 7] = [
    "objectClass",
    "vendorName",
    "namingContexts",
    "subschemaSubentry",
    "changeLog",
    "firstChangeNumber",
    "lastChangeNumber",
];

/// Whose rules it follows where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Slapd,
    Ds389,
    Other,
}

/// A server's root entry.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    root: Entry,
}

impl Server {
    pub(crate) fn of(client: &mut Client) -> Result<Self, Error> {
        let root = client.entry("", &ATTRIBUTES)?.unwrap_or_default();
        let is_slapd = root.values("objectClass").iter().any(|class| class.eq_ignore_ascii_case(b"OpenLDAProotDSE"));
        let kind = match root.text("vendorName") {
            _ if is_slapd => Kind::Slapd,
            Some(vendor) if vendor.contains("389") => Kind::Ds389,
            _ => Kind::Other,
        };
        Ok(Self { kind, root })
    }

    /// What its root entry says.
    pub(crate) fn says(&self, attribute: &str) -> Option<&str> {
        self.root.text(attribute)
    }

    /// A number that it says.
    pub(crate) fn number(&self, attribute: &str) -> Option<u64> {
        self.says(attribute).and_then(|number| number.parse().ok())
    }

    /// The top of the tree that a base is in.
    pub(crate) fn top(&self, base: &str) -> Option<&str> {
        let base = Dn::parse(base)?;
        let contexts = self.root.values("namingContexts").iter().filter_map(|dn| std::str::from_utf8(dn).ok());
        let tops = contexts.filter_map(|context| Some((context, Dn::parse(context)?)));
        let holding = tops.filter(|(_, top)| base.is_within(top, Scope::Subtree));
        holding.max_by_key(|(_, top)| top.depth()).map(|(context, _)| context)
    }

    /// What tells the tree that a base is in apart from all others: what its top was given when it was made. Copies of a tree have the
    /// same. Who may not see the top is told by the base.
    pub(crate) fn tree(&self, client: &mut Client, base: &str) -> Result<String, Error> {
        for dn in self.top(base).into_iter().chain([base]) {
            if let Some(identity) = identity(client, dn)? {
                return Ok(identity);
            }
        }
        match self.kind {
            // Of others it isn't known what they give.
            Kind::Other => Ok(String::new()),
            Kind::Slapd | Kind::Ds389 => Err(Error::configuration(format!(
                "this login sees no entryUUID or nsUniqueId of {base:?}, nor of what is above, so the server can't be told from others"
            ))),
        }
    }
}

/// What an entry was given when it was made.
pub(crate) fn identity(client: &mut Client, dn: &str) -> Result<Option<String>, Error> {
    let Some(entry) = client.entry(dn, &["entryUUID", "nsUniqueId"])? else { return Ok(None) };
    Ok(entry.text("nsUniqueId").or(entry.text("entryUUID")).map(str::to_owned))
}
