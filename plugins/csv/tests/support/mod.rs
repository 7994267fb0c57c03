//! A folder with CSV files, and connections to it.
#![allow(dead_code, unreachable_pub)]

use std::fs;

use csv::Csv;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tidewaiter_connector::testing::{Connection, Run};
use tidewaiter_connector::{Change, Delta, Error, Object};

pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With one file, `people.csv`.
    pub fn of(content: impl AsRef<[u8]>) -> Self {
        let folder = Self::new();
        folder.write("people.csv", content);
        folder
    }

    /// As an export should be written: under another name, then renamed.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let part = self.0.path().join("part");
        fs::write(&part, content).unwrap();
        fs::rename(part, self.0.path().join(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// With uid `id`, time `at`, no settling, and these settings in addition.
    pub fn connection(&self, more: Json) -> Connection<Csv> {
        let mut settings = json!({ "folder": self.0.path(), "uid": "id", "updated_at": "at", "settle_ms": 0 });
        let entries = settings.as_object_mut().unwrap();
        entries.extend(more.as_object().unwrap().clone());
        entries.retain(|_, value| !value.is_null());
        Connection::new(settings)
    }

    pub fn sync(&self, more: Json) -> Run {
        self.connection(more).sync("account", None)
    }

    pub fn error(&self, more: Json) -> Error {
        self.sync(more).outcome.unwrap_err()
    }
}

pub fn object(delta: &Delta) -> &Object {
    match &delta.change {
        Change::CreateOrUpdate(updated) => &updated.object,
        other => panic!("{other:?} is not an object"),
    }
}

pub fn uids(run: &Run) -> Vec<&str> {
    run.deltas().into_iter().map(Delta::uid).collect()
}
