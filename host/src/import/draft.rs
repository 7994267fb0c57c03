//! What translations of a provisioner's settings have in common: texts that OpenIDM resolves, servers, passwords, and what is left over.

use tidewaiter_core::grant::Grants;
use tidewaiter_core::grant::destination::{Host, Pattern};
use tidewaiter_core::grant::policy::EgressGrant;
use tidewaiter_core::name::ConnectionName;

use super::json::{Fields, Node, Said};
use super::object_type::ObjectType;
use super::page::Table;
use super::{Fate, ImportError, Note, Notes, quoted};

/// A server that there is not: what is configured with it reaches nothing.
const NOWHERE: &str = "fill-in.invalid";
/// The name of the secret that the connectors `ldap` and `sql` ask for.
const PASSWORD: &str = "password";
const PROPERTY: &str = "OpenIDM puts a property in here";
const ENCRYPTED: &str = "OpenIDM alone can decrypt it";

/// A connection, while its settings are translated.
pub(super) struct Draft<'a, 'n> {
    pub(super) name: &'n ConnectionName,
    pub(super) types: &'n mut Vec<ObjectType<'a>>,
    pub(super) notes: &'n mut Notes,
    pub(super) settings: Table,
    /// Those below `settings`, and beside it.
    pub(super) tables: Vec<Table>,
    pub(super) grants: Grants,
    /// What to know of the grants.
    pub(super) remarks: Vec<&'static str>,
}

/// Keys, and why nothing here says them.
pub(super) type Reasons = &'static [(&'static [&'static str], &'static str)];

impl Draft<'_, '_> {
    /// Says at the place of a setting, and in the list, that something has to be filled in.
    pub(super) fn asks(&mut self, node: &Node, reason: &str) -> &mut Note {
        self.settings.remark(&format!("{}: {reason}", node.path));
        self.notes.note(Fate::ToDo, node, reason.to_owned())
    }

    /// The same of what was changed.
    pub(super) fn changed(&mut self, node: &Node, reason: &str) -> &mut Note {
        self.settings.remark(&format!("{}: {reason}", node.path));
        self.notes.note(Fate::Changed, node, reason.to_owned())
    }

    /// A text; one that OpenIDM resolves is kept as it is written, or left out, and said to be filled in.
    pub(super) fn text(&mut self, node: &Node) -> Result<Option<String>, ImportError> {
        match node.said()? {
            Said::Text(text) => Ok(Some(text.to_owned())),
            Said::Property(text) => {
                self.asks(node, &format!("{PROPERTY}: {}", quoted(text))).then("write what it stands for");
                Ok(Some(text.to_owned()))
            }
            Said::Encrypted => {
                self.asks(node, ENCRYPTED).then("write it here");
                Ok(None)
            }
        }
    }

    /// Texts, of a list or by themselves.
    pub(super) fn texts(&mut self, node: Option<Node>) -> Result<Vec<String>, ImportError> {
        let nodes = node.map(|node| node.all()).transpose()?.unwrap_or_default();
        let texts = nodes.iter().map(|node| self.text(node));
        Ok(texts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// A flag; one that OpenIDM resolves is to be filled in, and is none.
    pub(super) fn flag(&mut self, node: Option<&Node>) -> Result<Option<bool>, ImportError> {
        match node {
            Some(node) if node.is_resolved_by_openidm() => {
                self.asks(node, PROPERTY).then("write what it stands for");
                Ok(None)
            }
            other => other.map(Node::flag).transpose(),
        }
    }

    /// The port; one that OpenIDM resolves is to be filled in.
    pub(super) fn port(&mut self, node: Option<&Node>, usual: u16) -> Result<u16, ImportError> {
        let Some(node) = node else { return Ok(usual) };
        if node.is_resolved_by_openidm() {
            let reason = format!("{PROPERTY}; {usual} is the usual port");
            self.asks(node, &reason).then("write the port into the connection and its grants");
            return Ok(usual);
        }
        let port = u16::try_from(node.number()?).ok().filter(|port| *port > 0);
        port.ok_or_else(|| node.wrong("it is no port of 1..=65535"))
    }

    /// The setting `server`, and the grant to connect there.
    pub(super) fn server(&mut self, host: &Node, port: u16, tls: bool) -> Result<(), ImportError> {
        let text = if host.is_empty() { Said::Text("") } else { host.said()? };
        let host = match text {
            Said::Text("") | Said::Property(_) | Said::Encrypted => {
                let reason = "the host isn't known here";
                self.asks(host, reason).then("write it into the connection and its grants");
                NOWHERE.to_owned()
            }
            Said::Text(text) if text.eq_ignore_ascii_case("localhost") => {
                self.changed(host, "this machine is granted, and named, by its address");
                "127.0.0.1".to_owned()
            }
            Said::Text(text) => text.trim().parse::<Host>().map_err(|error| host.wrong(error.problem()))?.to_string(),
        };
        self.connects(&format!("{host}:{port}"), tls);
        Ok(())
    }

    /// The same of a server that was read already.
    pub(super) fn connects(&mut self, server: &str, tls: bool) {
        self.settings.set("server", server);
        if let Ok(to) = Pattern::tcp(server) {
            self.grants.egress.push(EgressGrant { tls, ..EgressGrant::to(to) });
            self.remarks.push("Where the server has a private address: { to = …, in = [\"10.0.0.0/8\"] }");
        }
    }

    /// A password is not taken over: whoever reads the files of connections need not know it.
    pub(super) fn password(&mut self, node: &Node) -> Result<(), ImportError> {
        let reason = match if node.is_empty() { Said::Text("") } else { node.said()? } {
            Said::Encrypted => ENCRYPTED,
            Said::Property(_) => PROPERTY,
            Said::Text("") => "none is written there",
            Said::Text(_) => "a password is kept in a file of its own",
        };
        let file = format!("secrets/{}", self.name);
        let mut table = Table::new(&["secrets", PASSWORD]);
        table.remark(&format!("{reason}: write it into this file, which only the host may read"));
        table.set("file", file.as_str());
        self.tables.push(table);
        self.grants.reveal.push(PASSWORD.into());
        let note = self.notes.note(Fate::ToDo, node, format!("the secret {PASSWORD} is not there yet: {reason}"));
        note.then(format!("write the password into {file}, which only the host may read"));
        Ok(())
    }

    /// What nobody took.
    pub(super) fn rest(&mut self, fields: &mut Fields, reasons: Reasons, usual: &'static str) {
        for (key, node) in fields.rest() {
            let reason = reasons.iter().find(|(keys, _)| keys.contains(&key)).map_or(usual, |(_, reason)| reason);
            self.notes.none(&node, reason);
        }
    }

    /// The classes of the types, each once.
    pub(super) fn classes(&self) -> Vec<String> {
        let mut classes: Vec<String> = Vec::new();
        for object_type in self.types.iter() {
            if !classes.contains(&object_type.class) {
                classes.push(object_type.class.clone());
            }
        }
        classes
    }
}
