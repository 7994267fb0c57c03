//! Puts provisioners and schedules together into the files of connections and their grants.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tidewaiter_core::grant::Grants;

use super::object_type::ObjectType;
use super::page::{Table, list, written};
use super::provisioner::Provisioner;
use super::schedule::{Keys, Schedule};
use super::{Fate, Imported, Note, Notes};
use crate::config::{Documents, grant_lines};

/// What a type that has no schedule of its own says.
const WHEN_ASKED: &str = "No schedule: it runs when it is asked to";
/// Where there is no key for it, but the days on which clocks change.
const CLOCKS: &str = "When clocks change, an hour that is left out comes right after it, and one that comes twice counts once for a fixed time; Quartz leaves both to chance";

pub(super) fn assemble(provisioners: &[Provisioner], schedules: Vec<Schedule>, mut notes: Notes) -> Imported {
    let mut taken = BTreeMap::new();
    let mut orphans = Vec::new();
    for schedule in schedules {
        let found = provisioners.iter().find(|provisioner| provisioner.said == schedule.connection);
        let types = found.map(|provisioner| of_schedule(provisioner, &schedule)).unwrap_or_default();
        match found {
            Some(provisioner) if !types.is_empty() => {
                for object_type in types {
                    take(&mut taken, provisioner, object_type, &schedule, &mut notes);
                }
            }
            _ => orphans.push(schedule),
        }
    }
    for schedule in &orphans {
        let reason = "none of the files has what it runs";
        notes.note(Fate::ToDo, &schedule.source, reason).then(format!("in the type: {}", said(&schedule.keys)));
    }
    let mut documents = Documents::default();
    for provisioner in provisioners {
        let name = provisioner.name.clone();
        documents.connections.insert(name.clone(), connection(provisioner, &taken, &notes.0));
        if let Some(grants) = grants(provisioner) {
            documents.grants.insert(name, grants);
        }
    }
    Imported { documents, notes: notes.0, host_file: host_file(provisioners) }
}

/// By connection and type.
type Taken<'s> = BTreeMap<(String, String), Kept>;

/// A schedule that a type got.
#[derive(Debug)]
struct Kept {
    file: String,
    path: String,
    keys: Keys,
    idle: Option<String>,
}

fn of_schedule<'p, 'a>(provisioner: &'p Provisioner<'a>, schedule: &Schedule) -> Vec<&'p ObjectType<'a>> {
    let is_meant = |said: &str| schedule.object_type.as_deref().is_none_or(|named| named == said);
    provisioner.types.iter().filter(|object_type| is_meant(object_type.said)).collect()
}

/// Gives a schedule to a type, unless it has one that counts as much.
fn take(
    taken: &mut Taken,
    provisioner: &Provisioner,
    object_type: &ObjectType,
    schedule: &Schedule,
    notes: &mut Notes,
) {
    let key = (provisioner.name.to_string(), object_type.name.to_string());
    let Schedule { source, keys, idle, .. } = schedule;
    let kept = Kept { file: source.file.into(), path: source.path.clone(), keys: keys.clone(), idle: idle.clone() };
    let of = format!("{}/{}", key.0, key.1);
    let loser = match taken.remove(&key) {
        // One that counts comes before one that doesn't, and else the first.
        Some(other) if other.idle.is_none() || kept.idle.is_some() => {
            taken.insert(key, other);
            Some(kept)
        }
        other => {
            taken.insert(key, kept);
            other
        }
    };
    if let Some(Kept { file, path, keys, .. }) = loser {
        let reason = format!("{of} has another schedule already, and a type has one").into();
        let what_to_do = Some(format!("in the type instead: {}", said(&keys)).into());
        notes.0.push(Note { file, path, fate: Fate::NoCounterpart, reason, what_to_do });
    }
}

/// Keys in one line.
fn said(keys: &Keys) -> String {
    if keys.is_empty() {
        return "nothing, because it can't be said".into();
    }
    keys.iter().map(|(key, value)| format!("{key} = {value:?}")).collect::<Vec<_>>().join(", ")
}

fn connection(provisioner: &Provisioner, taken: &Taken, notes: &[Note]) -> String {
    let mut head = Table::default();
    head.remark(&format!("From {} of OpenIDM, by `tidewaiter import openidm`.", provisioner.node.file));
    provisioner.remarks.iter().for_each(|remark| head.remark(remark));
    head.set("connector", provisioner.connector.as_str());
    let mut tables = vec![head];
    tables.extend(provisioner.tables.iter().cloned());
    let mut files = BTreeSet::from([provisioner.node.file]);
    for object_type in &provisioner.types {
        let kept = taken.get(&(provisioner.name.to_string(), object_type.name.to_string()));
        files.extend(kept.map(|kept| kept.file.as_str()));
        tables.push(self::object_type(object_type, kept, provisioner.is_enabled));
    }
    let left: Vec<&Note> = notes.iter().filter(|note| files.contains(note.file.as_str())).collect();
    let mut end = Table::default();
    for (fate, title) in [
        (Fate::ToDo, "To be filled in:"),
        (Fate::Changed, "Taken over as something else:"),
        (Fate::NoCounterpart, "Without counterpart here:"),
    ] {
        let of_fate = || left.iter().filter(move |note| note.fate == fate);
        if of_fate().next().is_some() {
            end.remark(title);
        }
        for Note { file, path, reason, what_to_do, .. } in of_fate() {
            let what = what_to_do.as_ref().map(|what| format!("; {what}")).unwrap_or_default();
            end.remark(&format!("- {file}: {path}: {reason}{what}"));
        }
    }
    if !end.is_empty() {
        tables.push(end);
    }
    written(&tables)
}

fn object_type(of: &ObjectType, kept: Option<&Kept>, is_enabled: bool) -> Table {
    let mut table = Table::new(&["types", of.name.as_str()]);
    table.set("class", of.class.as_str());
    match kept {
        None => table.remark(WHEN_ASKED),
        Some(Kept { keys, idle: None, .. }) if is_enabled => {
            let is_of =
                |name: &str, is: &dyn Fn(&str) -> bool| keys.iter().any(|(key, value)| *key == name && is(value));
            if is_of("quartz", &|text| text.split(' ').nth(2) != Some("*")) && !is_of("zone", &|zone| zone == "UTC") {
                table.remark(CLOCKS);
            }
            if !keys.iter().any(|(key, _)| matches!(*key, "zone" | "every")) {
                table.remark("In the zone of this machine, because OpenIDM names none: `zone` names another");
            }
            keys.iter().for_each(|(key, value)| table.set(key, value.as_str()));
        }
        Some(Kept { keys, idle, .. }) => {
            table.remark(idle.as_deref().unwrap_or("its provisioner is not enabled in OpenIDM"));
            keys.iter().for_each(|(key, value)| table.left_out(key, value.as_str()));
        }
    }
    if !of.attributes.is_empty() {
        table.set("attributes", list(of.attributes.clone()));
    }
    table
}

fn grants(provisioner: &Provisioner) -> Option<String> {
    let lines = grant_lines(&Grants::default(), &provisioner.grants, Path::new(""));
    let head = format!("# What the connection {} may reach.\n", provisioner.name);
    let remarks = provisioner.grant_remarks.iter().map(|remark| format!("# {remark}\n"));
    (!lines.is_empty()).then(|| head + &remarks.collect::<String>() + &lines.join("\n") + "\n")
}

/// Lines for the host's file: the sink that does what failure handlers did.
fn host_file(provisioners: &[Provisioner]) -> Option<String> {
    let said = provisioners.iter().filter_map(|provisioner| Some((provisioner.retries?, provisioner)));
    let retries = said.clone().map(|(retries, _)| retries).max()?;
    let of =
        said.map(|(retries, provisioner)| format!("{}: {retries}", provisioner.name)).collect::<Vec<_>>().join(", ");
    let mut sink = Table::new(&["sinks", "openidm"]);
    sink.set("type", "webhook");
    sink.remark("Where notifyCreate, notifyUpdate and notifyDelete go");
    sink.set("url", "https://fill-in.invalid/openidm/sync");
    sink.set("format", "openidm");
    sink.remark(&format!("Of all connections; OpenIDM had {of}, and whoever has none tries for ever"));
    sink.set("max-retries", i64::from(retries));
    Some(written(&[sink]))
}
