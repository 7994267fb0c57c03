//! A provisioner of OpenIDM's: the connector that it runs, its settings, its object types, and what it says of timeouts and failures.

use tidewaiter_core::grant::Grants;
use tidewaiter_core::name::{ConnectionName, ConnectorName};

use super::draft::Draft;
use super::json::{Fields, Node};
use super::object_type::{self, ObjectType};
use super::page::Table;
use super::{Fate, ImportError, Notes, csv, ldap, quoted, sql};

/// What a connector is called whose class says nothing.
const UNNAMED: &str = "connector";
/// A longer call than a year's is as good as none.
const CALL_MS_MAX: i64 = 366 * 24 * 3600 * 1000;

/// A provisioner, as it is understood.
#[derive(Debug)]
pub(super) struct Provisioner<'a> {
    pub(super) node: Node<'a>,
    pub(super) name: ConnectionName,
    /// As OpenIDM calls it.
    pub(super) said: String,
    pub(super) connector: ConnectorName,
    /// What to know of it as a whole.
    pub(super) remarks: Vec<String>,
    pub(super) is_enabled: bool,
    /// Settings, secrets, limits.
    pub(super) tables: Vec<Table>,
    pub(super) types: Vec<ObjectType<'a>>,
    pub(super) grants: Grants,
    pub(super) grant_remarks: Vec<&'static str>,
    /// How often a sink is to try what it can't take; none: for ever.
    pub(super) retries: Option<u32>,
}

type Translate = fn(&mut Draft, &mut Fields) -> Result<(), ImportError>;

/// Reads one. `stem` is what its file is called by.
pub(super) fn provisioner<'a>(
    node: Node<'a>,
    stem: Option<&str>,
    notes: &mut Notes,
) -> Result<Provisioner<'a>, ImportError> {
    let mut fields = node.fields()?;
    let (name, said) = name(&mut fields, stem, notes)?;
    let (connector, translate) = connector(&mut fields, notes)?;
    let mut remarks = Vec::new();
    let is_enabled = match fields.take("enabled") {
        Some(enabled) if !enabled.flag()? => {
            notes.note(Fate::Changed, &enabled, "a connection is there or not: its schedules are written as remarks");
            remarks.push("OpenIDM has it not enabled: no schedule of it counts.".to_owned());
            false
        }
        _ => true,
    };
    let written = fields.take("objectTypes").unwrap_or_else(|| fields.at("objectTypes"));
    let mut types = if written.is_empty() { Vec::new() } else { object_type::all(&written, notes)? };
    if types.is_empty() {
        return Err(written.wrong("there is no object type, and a connection has one at least"));
    }
    let mut draft = Draft {
        name: &name,
        types: &mut types,
        notes,
        settings: Table::new(&["settings"]),
        tables: Vec::new(),
        grants: Grants::default(),
        remarks: Vec::new(),
    };
    if let Some(properties) = fields.take("configurationProperties") {
        translate(&mut draft, &mut properties.fields()?)?;
    } else {
        let at = fields.at("configurationProperties");
        draft.asks(&at, "there are no settings").then("write them");
    }
    let Draft { settings, tables, grants, remarks: mut grant_remarks, .. } = draft;
    grant_remarks.dedup();
    let mut tables = std::iter::once(settings).chain(tables).collect::<Vec<_>>();
    tables.extend(timeouts(&mut fields, notes)?);
    let retries = failures(&mut fields, notes)?;
    others(&mut fields, notes)?;
    Ok(Provisioner { node, name, said, connector, remarks, is_enabled, tables, types, grants, grant_remarks, retries })
}

/// What it is called here, and by OpenIDM.
fn name(fields: &mut Fields, stem: Option<&str>, notes: &mut Notes) -> Result<(ConnectionName, String), ImportError> {
    let node = fields.take("name");
    let said = match (&node, stem) {
        (Some(node), _) => node.text()?.to_owned(),
        (None, Some(stem)) => stem.to_owned(),
        (None, None) => {
            return Err(fields
                .at("name")
                .wrong("it has no name, and its file is not called provisioner.openicf-NAME.json"));
        }
    };
    let node = node.unwrap_or_else(|| fields.at("name"));
    if let Some(stem) = stem.filter(|stem| *stem != said) {
        notes.note(Fate::Changed, &node, format!("its file is called {}, and the name counts", quoted(stem)));
    }
    let (called, is_changed) = object_type::name(&node, &said)?;
    let name = ConnectionName::try_from(called).map_err(|error| node.wrong(error))?;
    if is_changed {
        notes.note(Fate::Changed, &node, format!("it is called {name} here, and so it is in OpenIDM's calls"));
    }
    Ok((name, said))
}

/// The connector, and who translates its settings.
fn connector(fields: &mut Fields, notes: &mut Notes) -> Result<(ConnectorName, Translate), ImportError> {
    let node = fields.take("connectorRef").unwrap_or_else(|| fields.at("connectorRef"));
    let mut of = node.fields()?;
    let class = of.take("connectorName");
    let bundle = of.take("bundleName");
    let at = class.clone().or_else(|| bundle.clone()).unwrap_or_else(|| of.at("connectorName"));
    if let Some(bundle) = &bundle {
        bundle.text()?;
    }
    let said = at.text()?;
    let simple = said.rsplit('.').next().unwrap_or_default();
    let (called, translate): (&str, Translate) = match simple.to_ascii_lowercase().as_str() {
        "ldapconnector" | "ldap-connector" => ("ldap", ldap::translate),
        "databasetableconnector" | "databasetable-connector" | "databasetable" => ("sql", sql::table),
        "scriptedsqlconnector" | "scriptedsql-connector" => ("sql", sql::scripted),
        "csvfileconnector" | "csvfile-connector" | "csvconnector" => ("csv", csv::translate),
        _ => ("", unknown),
    };
    for (key, reason) in [
        ("bundleVersion", "which file of a connector is run is up to `connectors pin`"),
        ("displayName", "a connector says by itself what it is"),
        ("systemType", "there is one kind of connections"),
    ] {
        if let Some(node) = of.take(key) {
            notes.none(&node, reason);
        }
    }
    if let Some(host) = of.take("connectorHostRef").filter(|host| !host.raw().is_ok_and(|host| host == "#LOCAL")) {
        notes.none(&host, "connectors run in the host, and on no other machine");
    }
    for (_, node) in of.rest() {
        notes.none(&node, "a connection names its connector, and no more");
    }
    if !called.is_empty() {
        return Ok((called.parse().map_err(|error| at.wrong(error))?, translate));
    }
    let called = derived(simple);
    let connector: ConnectorName = called.parse().map_err(|error| at.wrong(error))?;
    let note = notes.note(Fate::ToDo, &at, format!("{} has no counterpart that is known here", quoted(said)));
    note.then(format!("have a connector of the name {connector}, or name another one, and write its settings"));
    Ok((connector, translate))
}

/// A name out of the last part of a class's.
fn derived(simple: &str) -> String {
    let lower = simple.to_ascii_lowercase();
    let short = lower.strip_suffix("connector").unwrap_or(&lower);
    let made: String = short.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let made = made.trim_matches('-');
    if made.is_empty() { UNNAMED.to_owned() } else { made.to_owned() }
}

/// Settings of a connector that is not known.
fn unknown(draft: &mut Draft, fields: &mut Fields) -> Result<(), ImportError> {
    draft.settings.remark("Those of the connector: `tidewaiter connectors inspect FILE` explains them");
    draft.rest(fields, &[], "which setting of the connector it is isn't known here");
    Ok(())
}

/// `operationTimeout`: one of live sync, the rest of calls that are not made.
fn timeouts(fields: &mut Fields, notes: &mut Notes) -> Result<Option<Table>, ImportError> {
    const NOT_CALLED: &str = "it is never called, or bounded like any call by `call-time`";
    let Some(node) = fields.take("operationTimeout") else { return Ok(None) };
    let mut of = node.fields()?;
    let mut table = None;
    if let Some(sync) = of.take("SYNC") {
        match if sync.is_resolved_by_openidm() { 0 } else { sync.number()? } {
            ms @ 1..=CALL_MS_MAX => {
                let mut limits = Table::new(&["limits"]);
                limits.set("call-time", format!("{ms}ms"));
                table = Some(limits);
            }
            _ => {
                let note = notes.none(&sync, "every call ends at some time: after 15 minutes, if nothing else is said");
                note.then("`call-time` of `[limits]` says when");
            }
        }
    }
    for (_, node) in of.rest() {
        notes.none(&node, NOT_CALLED);
    }
    Ok(table)
}

/// `syncFailureHandler`: how often a sink tries.
fn failures(fields: &mut Fields, notes: &mut Notes) -> Result<Option<u32>, ImportError> {
    let Some(node) = fields.take("syncFailureHandler") else { return Ok(None) };
    let mut of = node.fields()?;
    let retries = of.take("maxRetries");
    let number = match &retries {
        Some(retries) if retries.is_resolved_by_openidm() => {
            notes.note(Fate::ToDo, retries, "OpenIDM puts a property in here").then("write `max-retries` of the sink");
            None
        }
        other => other.as_ref().map(Node::number).transpose()?,
    };
    let number = number.filter(|number| *number >= 0);
    let number = number.map(|number| u32::try_from(number).map_err(|_| node.wrong("maxRetries: it is too large")));
    let number = number.transpose()?;
    let action = of.take("postRetryAction");
    match (number, &retries) {
        (Some(number), Some(retries)) => {
            let note = notes.note(Fate::Changed, retries, "it is up to a sink, for all connections");
            note.then(format!("`max-retries = {number}` in the sink"));
        }
        (None, Some(retries)) => {
            notes.note(Fate::Changed, retries, "a sink without `max-retries` sends an entry for ever");
        }
        _ => {}
    }
    if let Some(action) = action {
        match (action.raw(), number) {
            (_, None) => notes.none(&action, "a sink without `max-retries` never gives up"),
            (Ok("dead-letter-queue"), _) => {
                notes.note(Fate::Changed, &action, "it is always so: what a sink refuses becomes a dead letter")
            }
            (Ok("logged-ignore"), _) => {
                let note = notes.note(
                    Fate::Changed,
                    &action,
                    "what a sink refuses becomes a dead letter, and what comes after it of the same object waits",
                );
                note.then("`tidewaiter dead-letters drop` gives it up");
                note
            }
            _ => notes.none(&action, "no scripts are run: what a sink refuses becomes a dead letter"),
        };
    }
    for (_, node) in of.rest() {
        notes.none(&node, "sinks have nothing like it");
    }
    Ok(number)
}

/// What nothing here says.
fn others(fields: &mut Fields, notes: &mut Notes) -> Result<(), ImportError> {
    const POOL: &str = "each run has an instance of its own, and what it keeps ends with it";
    const IDENTITY: &str = "it says nothing of the connection";
    if let Some(operations) = fields.take("operationOptions") {
        for (operation, node) in operations.fields()?.rest() {
            match operation {
                "SYNC" => notes
                    .none(&node, "nothing bounds what live sync asks of a class")
                    .then("take out the types that it denies"),
                _ => {
                    notes.none(&node, "the operation is never called, or nothing bounds it");
                }
            }
        }
    }
    for (key, node) in fields.rest() {
        let reason = match key {
            "poolConfigOption" | "connectorPoolingSupported" => POOL,
            "producerBufferSize" => "what is handed over goes on as fast as it is written",
            "resultsHandlerConfig" => {
                "nothing stands between a connector and the host that could filter what it hands over"
            }
            "systemActions" => "no scripts are run",
            "_id" | "_rev" | "_schema_id" | "_schema_rev" | "displayName" | "typeString" | "hasId" => IDENTITY,
            _ => "connections have nothing like it",
        };
        notes.none(&node, reason);
    }
    Ok(())
}
