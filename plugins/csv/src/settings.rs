//! What the operator configures, checked as far as it can be without looking at a file.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use jiff::tz::Offset;
use serde::Deserialize;
use tidewaiter_connector::Error;
use tidewaiter_connector::cells::CellType;

use crate::time;

/// The settings; `settings.schema.json` says the same to the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub(crate) folder: String,
    file: Option<String>,
    files: Option<Vec<String>>,
    #[serde(default = "account")]
    pub(crate) class: String,
    pub(crate) uid: String,
    name: Option<String>,
    pub(crate) updated_at: Option<String>,
    pub(crate) deleted_at: Option<String>,
    #[serde(default = "comma")]
    delimiter: String,
    #[serde(default)]
    pub(crate) types: BTreeMap<String, CellType>,
    #[serde(default)]
    pub(crate) lists: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) bad_rows: BadRows,
    #[serde(default = "second")]
    settle_ms: u64,
    #[serde(default = "utc")]
    zone: String,
}

/// What is done with a row that can't be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BadRows {
    /// The run fails.
    #[default]
    Reject,
    /// It is left out, with a warning.
    Skip,
}

/// Which files of the folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selection {
    /// These.
    Named(Vec<String>),
    /// Every file whose name ends with `.csv`.
    Every,
}

/// The settings in the form that the work needs.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) selection: Selection,
    pub(crate) delimiter: u8,
    pub(crate) settle: Duration,
    pub(crate) zone: Offset,
}

impl Settings {
    /// The column of the name.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.uid)
    }

    pub(crate) fn check(self) -> Result<Config, Error> {
        let selection = match (&self.file, &self.files) {
            (Some(_), Some(_)) => {
                return Err(Error::configuration("settings `file` and `files`: only one of them can be set"));
            }
            (Some(file), None) => Selection::Named(vec![plain("file", file)?]),
            (None, Some(files)) => {
                let plain = files.iter().map(|file| plain("files", file));
                Selection::Named(plain.collect::<Result<_, _>>()?)
            }
            (None, None) => Selection::Every,
        };
        if let Some(column) = self.lists.iter().find_map(|(column, by)| by.is_empty().then_some(column)) {
            return Err(Error::configuration(format!("setting `lists`: the separator of {column:?} is empty")));
        }
        Ok(Config {
            selection,
            delimiter: delimiter(&self.delimiter)?,
            settle: Duration::from_millis(self.settle_ms),
            zone: time::offset(&self.zone).ok_or_else(|| {
                Error::configuration(format!("setting `zone`: {:?} is not like \"+01:00\"", self.zone))
            })?,
            settings: self,
        })
    }
}

/// A name that stays in the folder. The sandbox sees to that anyway; this says it in words.
fn plain(setting: &str, file: &str) -> Result<String, Error> {
    let inside = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if file.is_empty() || !inside {
        return Err(Error::configuration(format!(
            "setting `{setting}`: {file:?} is not the name of a file in the folder"
        )));
    }
    Ok(file.to_owned())
}

fn delimiter(text: &str) -> Result<u8, Error> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
        _ => Err(Error::configuration(format!(
            "setting `delimiter`: {text:?} is not one ASCII character that can delimit"
        ))),
    }
}

fn account() -> String {
    "account".to_owned()
}

fn comma() -> String {
    ",".to_owned()
}

fn second() -> u64 {
    1000
}

fn utc() -> String {
    "+00:00".to_owned()
}
