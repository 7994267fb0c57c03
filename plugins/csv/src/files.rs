//! The files: which ones, open, at rest, and what their headers say. Owns the open handles: a file that is replaced by renaming
//! stays the one that was opened.

use std::fs::{self, File, Metadata};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Context, Error, SyncOptions};

use crate::rows::{Reader, Row, RowEnd};
use crate::settings::{Config, Selection};

/// How long beyond `settle_ms` a file may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// An open file.
#[derive(Debug)]
pub(crate) struct CsvFile {
    pub(crate) name: String,
    pub(crate) file: File,
    pub(crate) columns: Columns,
    stamp: Stamp,
}

/// What changes when a file is written.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

/// The columns of one file, by index.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) names: Vec<String>,
    pub(crate) uid: usize,
    pub(crate) name: usize,
    /// None: there are no times, and changes are found by comparison.
    pub(crate) updated_at: Option<usize>,
    pub(crate) deleted_at: Option<usize>,
    /// For each column: how it becomes an attribute. None: it does not.
    pub(crate) attributes: Vec<Option<Column>>,
}

/// How the cells of a column are read.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) cell_type: CellType,
    pub(crate) separator: Option<String>,
}

/// Opens the files, waits until they are at rest, and reads their headers.
pub(crate) fn open(config: &Config, options: Option<&SyncOptions>) -> Result<Vec<CsvFile>, Error> {
    let mut files = Vec::new();
    for name in names(config)? {
        let path = Path::new(&config.settings.folder).join(&name);
        let file = File::open(&path).with_context(|| name.clone())?;
        let stamp = settled(&name, &file, config.settle)?;
        let columns = header(&name, &file, config, options)?;
        files.push(CsvFile { name, file, columns, stamp });
    }
    Ok(files)
}

fn names(config: &Config) -> Result<Vec<String>, Error> {
    if let Selection::Named(names) = &config.selection {
        return Ok(names.clone());
    }
    let folder = &config.settings.folder;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("folder {folder:?}"))? {
        let entry = entry.with_context(|| format!("folder {folder:?}"))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.to_ascii_lowercase().ends_with(".csv") && !name.starts_with('.') {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Stamp {
    fn of(name: &str, file: &File) -> Result<Self, Error> {
        let metadata: Metadata = file.metadata().with_context(|| name.to_owned())?;
        Ok(Self { length: metadata.len(), modified: metadata.modified().ok() })
    }

    /// How long ago it was written. None: the clock can't say, for instance because it was set back.
    fn age(&self) -> Option<Duration> {
        SystemTime::now().duration_since(self.modified?).ok()
    }
}

impl CsvFile {
    /// Nothing was written since it was opened.
    pub(crate) fn unchanged(&self, config: &Config) -> Result<(), Error> {
        if config.settle.is_zero() || Stamp::of(&self.name, &self.file)? == self.stamp {
            return Ok(());
        }
        Err(being_written(&self.name))
    }

    /// An error about this file.
    pub(crate) fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::retryable(format!("{}: {what}", self.name))
    }

    pub(crate) fn rewind(&self) -> Result<(), Error> {
        (&self.file).seek(SeekFrom::Start(0)).map(drop).with_context(|| self.name.clone())
    }
}

pub(crate) fn being_written(name: &str) -> Error {
    Error::retryable(format!(
        "{name} is still being written; an export should be written under another name and renamed when it is complete"
    ))
}

/// Waits until the file was not written for `settle`: by its time, or by watching it for as long, whichever comes first. So a
/// clock that jumps costs `settle` at most.
fn settled(name: &str, file: &File, settle: Duration) -> Result<Stamp, Error> {
    let mut stamp = Stamp::of(name, file)?;
    let (mut waited, mut unchanged) = (Duration::ZERO, Duration::ZERO);
    while !settle.is_zero() && unchanged < settle && stamp.age().is_none_or(|age| age < settle) {
        if waited > settle + PATIENCE {
            return Err(being_written(name));
        }
        let pause = LOOK.min(settle);
        sleep(pause);
        waited += pause;
        unchanged += pause;
        let now = Stamp::of(name, file)?;
        if now != stamp {
            (stamp, unchanged) = (now, Duration::ZERO);
        }
    }
    Ok(stamp)
}

fn header(name: &str, file: &File, config: &Config, options: Option<&SyncOptions>) -> Result<Columns, Error> {
    let mut reader = Reader::new(file, config.delimiter).with_context(|| name.to_owned())?;
    let Some((row, place)) = reader.next().with_context(|| name.to_owned())? else {
        return Err(Error::retryable(format!("{name} is empty: its first line should name the columns")));
    };
    if place.end == RowEnd::Quote || (place.end == RowEnd::File && config.settle.is_zero()) {
        return Err(being_written(name));
    }
    Columns::new(row, config, options).with_context(|| name.to_owned())
}

impl Columns {
    fn new(row: &Row, config: &Config, options: Option<&SyncOptions>) -> Result<Self, Error> {
        let names = column_names(row)?;
        let find = |setting: &str, column: &str| {
            let found = names.iter().position(|name| name.eq_ignore_ascii_case(column));
            found.ok_or_else(|| {
                let all = names.join(", ");
                Error::configuration(format!("no column {column:?} (setting `{setting}`); there are: {all}"))
            })
        };
        let settings = &config.settings;
        let mut columns = Self {
            uid: find("uid", &settings.uid)?,
            name: find("name", settings.name())?,
            updated_at: settings.updated_at.as_ref().map(|column| find("updated_at", column)).transpose()?,
            deleted_at: settings.deleted_at.as_ref().map(|column| find("deleted_at", column)).transpose()?,
            ..Self::default()
        };
        let wanted = options.and_then(|options| options.attributes.as_ref());
        let is_wanted =
            |name: &str| wanted.is_none_or(|wanted| wanted.iter().any(|other| other.eq_ignore_ascii_case(name)));
        for (index, name) in names.iter().enumerate() {
            let is_control = index == columns.uid || index == columns.name || Some(index) == columns.deleted_at;
            let is_attribute = !is_control && is_wanted(name);
            let column = is_attribute.then(|| columns.column(index, name, config));
            columns.attributes.push(column);
        }
        columns.names = names;
        Ok(columns)
    }

    fn column(&self, index: usize, name: &str, config: &Config) -> Column {
        let default = if Some(index) == self.updated_at { CellType::Timestamp } else { CellType::Text };
        Column {
            cell_type: by_name(&config.settings.types, name).copied().unwrap_or(default),
            separator: by_name(&config.settings.lists, name).cloned(),
        }
    }
}

fn by_name<'a, T>(settings: &'a std::collections::BTreeMap<String, T>, name: &str) -> Option<&'a T> {
    settings.iter().find_map(|(column, value)| column.eq_ignore_ascii_case(name).then_some(value))
}

fn column_names(row: &Row) -> Result<Vec<String>, Error> {
    let mut names: Vec<String> = Vec::new();
    for index in 0..row.len() {
        let number = index + 1;
        let name = row.text(index).map(str::trim).unwrap_or_default();
        if name.is_empty() {
            return Err(Error::configuration(format!("column {number} has no name")));
        }
        if names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(Error::configuration(format!("the column {name:?} is there twice")));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}
