//! OpenIDM's files, each by what it is: a provisioner, or a schedule.

use serde_json::Value;

use super::assemble::assemble;
use super::json::{self, Node};
use super::provisioner::{Provisioner, provisioner};
use super::schedule::schedule;
use super::{Here, ImportError, Imported, Notes, Written};

/// What a file is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Provisioner,
    Schedule,
}

/// Translates provisioners and the schedules of their live sync into connections.
///
/// # Errors
/// A file can't be read, says something that it can't say, or there are two of one name.
pub fn openidm(files: &[Written], here: &Here) -> Result<Imported, ImportError> {
    let parsed = files.iter().map(|file| Ok((file, json::parse(&file.name, &file.text)?)));
    let parsed: Vec<(&Written, Value)> = parsed.collect::<Result<_, ImportError>>()?;
    let mut notes = Notes::default();
    let (mut provisioners, mut schedules) = (Vec::<Provisioner>::new(), Vec::new());
    for (file, value) in &parsed {
        let node = Node::root(&file.name, value);
        match kind(&node, &file.name)? {
            Kind::Schedule => schedules.push(node),
            Kind::Provisioner => {
                let read = provisioner(node, stem(&file.name), &mut notes)?;
                if let Some(other) = provisioners.iter().find(|other| other.name == read.name) {
                    let problem = format!("{} would be called {} here, too", other.node.file, other.name);
                    return Err(read.node.fields()?.at("name").wrong(problem));
                }
                provisioners.push(read);
            }
        }
    }
    let read = schedules.into_iter().map(|node| schedule(node, &provisioners, here, &mut notes));
    let read: Vec<_> = read.collect::<Result<_, _>>()?;
    Ok(assemble(&provisioners, read.into_iter().flatten().collect(), notes))
}

/// By its name, or else by what it says.
fn kind(node: &Node, file: &str) -> Result<Kind, ImportError> {
    let (fields, name) = (node.fields()?, file.rsplit('/').next().unwrap_or_default());
    match () {
        () if name.starts_with("provisioner.") => Ok(Kind::Provisioner),
        () if name.starts_with("schedule-") || name.starts_with("schedule_") => Ok(Kind::Schedule),
        () if fields.has("connectorRef") => Ok(Kind::Provisioner),
        () if fields.has("invokeService") => Ok(Kind::Schedule),
        () => Err(node.wrong("it is neither a provisioner (`connectorRef`) nor a schedule (`invokeService`)")),
    }
}

/// The name in the name of a provisioner's file.
fn stem(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next()?.strip_prefix("provisioner.openicf")?;
    name.strip_prefix(['-', '_'])?.strip_suffix(".json").filter(|stem| !stem.is_empty())
}
