//! `tidewaiter import …`: reads the files of another system, has them translated, looks at what comes out as the host will, and writes it beside what is
//! there, or prints it. Needs no configuration, and overwrites nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::fail::{Exit, Fail};
use super::print;
use crate::clock::Clock;
use crate::config::{Config, Documents};
use crate::files;
use crate::import::{self, Fate, Here, Imported, Note, Written};

/// The largest file that is imported, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// As many are imported at a time.
const FILES_MAX: usize = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Provisioners and schedules of OpenIDM's: conf/provisioner.openicf-*.json and conf/schedule-*.json. Tokens stay there
    Openidm {
        /// The files; a schedule counts for the provisioners that are named with it
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write connections/NAME.toml and grants/NAME.toml into this folder, where they must not be there yet. Without it they
        /// are printed
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
}

/// What was made, and written where.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    imported: Imported,
    written: Vec<String>,
}

pub(super) fn perform(config: &Path, command: &Command, json: bool) -> Result<(), Fail> {
    let Command::Openidm { files, to } = command;
    if files.len() > FILES_MAX {
        return Err(Fail::new(Exit::Usage, format!("{} files are more than {FILES_MAX}", files.len())));
    }
    let files = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let here = Here { now: Clock::start().now(), zone: TimeZone::system() };
    let imported = import::openidm(&files, &here).map_err(|error| Fail::of(Exit::Usage, &error))?;
    let folder = to.as_deref().unwrap_or_else(|| config.parent().unwrap_or(Path::new("")));
    let folder = std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let folder = folder.map_err(|error| Fail::new(Exit::Host, error))?;
    let there = if to.is_some() { Documents::in_folder(&folder)? } else { Documents::default() };
    let written = to.as_ref().map(|_| write(&imported.documents, &folder, &there)).transpose()?.unwrap_or_default();
    if to.is_none() {
        Config::of_documents(&imported.documents, &folder)?;
    }
    let written = written.iter().map(|path| path.display().to_string()).collect();
    print::out(json, &Answer { imported, written }, text)
}

fn read(path: &Path) -> Result<Written, Fail> {
    let name = path.display().to_string();
    let text = files::text(path, FILE_BYTES_MAX).map_err(|error| {
        let exit = if error.kind() == ErrorKind::NotFound { Exit::Unknown } else { Exit::Usage };
        Fail::new(exit, format!("{name}: {error}"))
    })?;
    Ok(Written { name, text })
}

/// Writes what the host would read, beside what is there.
fn write(documents: &Documents, folder: &Path, there: &Documents) -> Result<Vec<PathBuf>, Fail> {
    Config::of_documents(&there.with(documents, false), folder)?;
    documents.add(folder).map_err(|error| {
        let exit = if error.kind() == ErrorKind::AlreadyExists { Exit::Refused } else { Exit::Host };
        Fail::new(exit, error)
    })
}

fn text(answer: &Answer) -> String {
    let Answer { imported: Imported { documents, notes, host_file }, written } = answer;
    let mut parts = Vec::new();
    if written.is_empty() {
        let files = [("connections", &documents.connections), ("grants", &documents.grants)];
        let files =
            files.into_iter().flat_map(|(folder, texts)| texts.iter().map(move |(name, text)| (folder, name, text)));
        parts.extend(files.map(|(folder, name, text)| format!("==> {folder}/{name}.toml <==\n{text}")));
    } else {
        parts.push(written.iter().map(|path| format!("{path} is written\n")).collect());
    }
    for (fate, title) in [
        (Fate::ToDo, "To be filled in"),
        (Fate::Changed, "Taken over as something else"),
        (Fate::NoCounterpart, "Without counterpart"),
    ] {
        let of_fate = grouped(notes.iter().filter(|note| note.fate == fate));
        if !of_fate.is_empty() {
            parts.push(format!("{title}:\n{}", of_fate.concat()));
        }
    }
    parts.extend(host_file.as_ref().map(|lines| format!("For tidewaiter.toml:\n{lines}")));
    parts.push("`tidewaiter check` says what else is missing.\n".to_owned());
    parts.join("\n")
}

/// One line for all places of a file about which the same is said.
fn grouped<'a>(notes: impl Iterator<Item = &'a Note>) -> Vec<String> {
    let mut groups: Vec<(&Note, Vec<&str>)> = Vec::new();
    for note in notes {
        let same = |(first, _): &&mut (&Note, Vec<&str>)| {
            (&first.file, &first.reason, &first.what_to_do) == (&note.file, &note.reason, &note.what_to_do)
        };
        match groups.iter_mut().find(same) {
            Some((_, paths)) => paths.push(&note.path),
            None => groups.push((note, vec![&note.path])),
        }
    }
    let line = |(note, paths): (&Note, Vec<&str>)| {
        let what_to_do = note.what_to_do.as_ref().map(|what| format!("; {what}")).unwrap_or_default();
        format!("  {}: {}: {}{what_to_do}\n", note.file, paths.join(", "), note.reason)
    };
    groups.into_iter().map(line).collect()
}
