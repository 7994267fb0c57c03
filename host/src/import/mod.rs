//! Connections out of what another system is configured with. Pure: it is handed what was read, and answers what is to be written and what of it has
//! no counterpart. It opens no file, and decides nothing about whether what it makes may run: that is read again by `config`.

mod assemble;
mod csv;
mod draft;
mod json;
mod ldap;
mod object_type;
mod openidm;
mod page;
mod provisioner;
mod quartz;
mod schedule;
mod sql;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Display;

use jiff::tz::TimeZone;
use serde::Serialize;
use tidewaiter_core::text::shown;
use tidewaiter_core::time::UnixMillis;

use self::json::Node;
pub use self::openidm::openidm;
use crate::config::Documents;

/// More of what is wrong isn't shown.
const PROBLEM_BYTES_MAX: usize = 500;
/// More of a value isn't shown.
const VALUE_BYTES_MAX: usize = 120;

/// A file, as it was read.
#[derive(Clone, Debug)]
pub struct Written {
    /// What it is called by whoever reads about it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// When and where it is imported: what is past by then, and what the zone of a schedule is that has none.
#[derive(Clone, Debug)]
pub struct Here {
    /// The time.
    pub now: UnixMillis,
    /// The machine's zone.
    pub zone: TimeZone,
}

/// What can't be imported.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {}{problem}", place(.path))]
pub struct ImportError {
    file: String,
    path: String,
    problem: String,
}

/// A path, before what is said of it.
fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

impl ImportError {
    fn new(file: &str, path: &str, problem: impl Display) -> Self {
        Self { file: file.into(), path: path.into(), problem: shown(&problem.to_string(), PROBLEM_BYTES_MAX) }
    }
}

/// What became of something that a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Somebody has to fill something in.
    ToDo,
    /// It is taken over as something else.
    Changed,
    /// Nothing here says it.
    NoCounterpart,
}

/// What somebody has to know of something that a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Note {
    /// The file.
    pub file: String,
    /// Where in its JSON.
    pub path: String,
    /// What became of it.
    pub fate: Fate,
    /// Why.
    pub reason: Cow<'static, str>,
    /// What to do, where there is something to do.
    pub what_to_do: Option<Cow<'static, str>>,
}

/// Notes, in the order in which they were made.
#[derive(Debug, Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn note(&mut self, fate: Fate, node: &Node, reason: impl Into<Cow<'static, str>>) -> &mut Note {
        let (file, path, reason) = (node.file.to_owned(), node.path.clone(), reason.into());
        let at = self.0.len();
        self.0.push(Note { file, path, fate, reason, what_to_do: None });
        &mut self.0[at]
    }

    /// Nothing here says it.
    fn none(&mut self, node: &Node, reason: impl Into<Cow<'static, str>>) -> &mut Note {
        self.note(Fate::NoCounterpart, node, reason)
    }
}

impl Note {
    fn then(&mut self, what_to_do: impl Into<Cow<'static, str>>) {
        self.what_to_do = Some(what_to_do.into());
    }
}

/// What was made of files.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Imported {
    /// Connections and their grants, to be written.
    #[serde(flatten)]
    pub documents: Documents,
    /// What of the files somebody has to know.
    pub notes: Vec<Note>,
    /// Lines for the host's file.
    pub host_file: Option<String>,
}

/// A text of somebody else, as it is shown.
fn quoted(text: &str) -> String {
    format!("{:?}", shown(text, VALUE_BYTES_MAX))
}
