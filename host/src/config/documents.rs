//! Connections and their grants as they are written: one TOML each by the name of the connection. Where operators write files, those are read; where the API
//! is what changes them, the host keeps them in its data, and every change of them is a folder of its own that comes in the place of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::text::hex;

use super::{Config, ConfigError, ConfigSource, read};
use crate::files;

/// Where the host keeps them, in its data.
pub(super) const CONFIGURED: &str = "configured";
/// The one of them that counts.
pub(super) const CURRENT: &str = "current";
/// Of those that counted before, so many are kept.
const KEPT: usize = 3;
const CONNECTIONS: &str = "connections";
const GRANTS: &str = "grants";

/// Connections and their grants, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// By connection.
    pub connections: BTreeMap<ConnectionName, String>,
    /// By connection; who has none is granted nothing.
    pub grants: BTreeMap<ConnectionName, String>,
}

impl Documents {
    /// Those of a configuration, by now.
    ///
    /// # Errors
    /// They can't be read.
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        Self::read(&config.connections_in, &config.grants_in)
    }

    /// Those of a folder that was exported: `connections/NAME.toml`, `grants/NAME.toml`.
    ///
    /// # Errors
    /// They can't be read, or there are none.
    pub fn of_folder(folder: &Path) -> Result<Self, ConfigError> {
        let connections = folder.join(CONNECTIONS);
        let unreadable = |source| ConfigError::Read { path: connections.clone(), source };
        fs::metadata(&connections).map_err(unreadable)?;
        let read = Self::read(&connections, &folder.join(GRANTS))?;
        match read.connections.is_empty() {
            false => Ok(read),
            true => Err(unreadable(io::Error::new(io::ErrorKind::NotFound, "there is no NAME.toml in it"))),
        }
    }

    /// Those of a folder, if it has any.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, ConfigError> {
        let [connections, grants] = folders(folder);
        Self::read(&connections, &grants)
    }

    /// Writes them into a folder that may have others, each as a new file, and answers which those are. What couldn't be finished is taken back.
    ///
    /// # Errors
    /// One of them is there already, and then nothing is written; or they can't be written.
    pub(crate) fn add(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let [connections, grants] = folders(folder);
        let texts = [(connections, &self.connections), (grants, &self.grants)];
        let files = texts
            .into_iter()
            .flat_map(|(folder, texts)| texts.iter().map(move |(name, text)| (document(&folder, name), text)));
        // No grant is there without its connection at any time.
        let files: Vec<(PathBuf, &String)> = files.collect();
        if let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", path.display())));
        }
        let mut added = Vec::new();
        for (path, text) in files {
            let folder = path.parent().unwrap_or(folder);
            let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
            if let Err(error) = made.and_then(|()| files::create(&path, text.as_bytes(), 0o600)) {
                added.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(at(&path, &error));
            }
            added.push(path);
        }
        Ok(added)
    }

    pub(super) fn read(connections: &Path, grants: &Path) -> Result<Self, ConfigError> {
        Ok(Self { connections: toml_files(connections)?, grants: toml_files(grants)? })
    }

    /// Of these connections only.
    #[must_use]
    pub fn only(mut self, names: &[ConnectionName]) -> Self {
        self.connections.retain(|name, _| names.contains(name));
        self.grants.retain(|name, _| names.contains(name));
        self
    }

    /// These, and in the place of connections that `others` have, those; or nothing but those.
    #[must_use]
    pub fn with(&self, others: &Self, nothing_else: bool) -> Self {
        if nothing_else {
            return others.clone();
        }
        let mut all = self.clone();
        for (name, text) in &others.connections {
            all.connections.insert(name.clone(), text.clone());
            all.grants.remove(name);
        }
        all.grants.extend(others.grants.clone());
        all
    }

    /// Without these connections.
    #[must_use]
    pub fn without(mut self, names: &BTreeSet<ConnectionName>) -> Self {
        self.connections.retain(|name, _| !names.contains(name));
        self.grants.retain(|name, _| !names.contains(name));
        self
    }

    /// What tells one text of a connection and its grants from another; none: it isn't there.
    pub fn mark(&self, name: &ConnectionName) -> Option<String> {
        let connection = self.connections.get(name)?;
        let mut hash = Sha256::new_with_prefix(connection.len().to_le_bytes());
        hash.update(connection);
        hash.update(self.grants.get(name).map_or("", String::as_str));
        Some(hex(&hash.finalize()))
    }

    /// Writes them into a folder, as `of_folder` reads them.
    ///
    /// # Errors
    /// The folder has some already, or can't be written.
    pub fn export(&self, folder: &Path) -> io::Result<()> {
        for (name, documents) in [(CONNECTIONS, &self.connections), (GRANTS, &self.grants)] {
            let folder = folder.join(name);
            fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder)?;
            if fs::read_dir(&folder)?.next().is_some() {
                return Err(io::Error::other(format!("{} is not empty", folder.display())));
            }
            for (name, text) in documents {
                files::put(&document(&folder, name), text.as_bytes(), 0o600)?;
            }
            File::open(&folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Makes them those of a configuration: file by file, or all of them at once where the host keeps them.
    ///
    /// # Errors
    /// They can't be written.
    pub fn store(&self, config: &Config) -> io::Result<()> {
        match config.source {
            ConfigSource::Files => {
                let before = Self::of(config).map_err(io::Error::other)?;
                // What couldn't be finished is taken back, as far as that can be.
                self.replace(config).inspect_err(|_| drop(before.replace(config)))
            }
            ConfigSource::Program => Err(io::Error::other("the program that embeds the host keeps them")),
            ConfigSource::Api => self.store_at_once(&config.data.join(CONFIGURED)),
        }
    }

    /// Writes them file by file, so that there is no grant without its connection at any time.
    fn replace(&self, config: &Config) -> io::Result<()> {
        let (connections_in, grants_in) = (&config.connections_in, &config.grants_in);
        write(connections_in, &self.connections)?;
        write(grants_in, &self.grants)?;
        drop_others(grants_in, &self.grants)?;
        drop_others(connections_in, &self.connections)
    }

    fn store_at_once(&self, configured: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(configured)?;
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(configured)? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let next = (numbers.last().copied().unwrap_or(0) + 1).to_string();
        self.export(&configured.join(&next))?;
        File::open(configured.join(&next))?.sync_all()?;
        let (link, current) = (configured.join("next"), configured.join(CURRENT));
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(&next, &link)?,
        }
        fs::rename(&link, &current)?;
        File::open(configured)?.sync_all()?;
        for old in numbers.iter().rev().skip(KEPT) {
            // It counts already; what is left over goes the next time.
            drop(fs::remove_dir_all(configured.join(old.to_string())));
        }
        Ok(())
    }
}

/// Writes documents into a folder in which there are others, each as a whole, and to where a link in their place leads.
fn write(folder: &Path, documents: &BTreeMap<ConnectionName, String>) -> io::Result<()> {
    let there = toml_files(folder).map_err(io::Error::other)?;
    let changed = documents.iter().filter(|(name, text)| there.get(*name) != Some(*text));
    for (name, text) in changed {
        let path = document(folder, name);
        fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
        let to = fs::canonicalize(&path).unwrap_or(path);
        files::put(&to, text.as_bytes(), 0o600).map_err(|error| at(&to, &error))?;
    }
    Ok(())
}

/// Removes the documents of a folder that are none of these.
fn drop_others(folder: &Path, documents: &BTreeMap<ConnectionName, String>) -> io::Result<()> {
    let there = toml_files(folder).map_err(io::Error::other)?;
    for name in there.keys().filter(|name| !documents.contains_key(*name)) {
        let path = document(folder, name);
        fs::remove_file(&path).map_err(|error| at(&path, &error))?;
    }
    match there.is_empty() {
        true => Ok(()),
        false => File::open(folder)?.sync_all(),
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Where a folder that is exported has connections, and grants.
pub(super) fn folders(folder: &Path) -> [PathBuf; 2] {
    [CONNECTIONS, GRANTS].map(|name| folder.join(name))
}

/// The file of a connection in a folder.
pub(super) fn document(folder: &Path, name: &ConnectionName) -> PathBuf {
    folder.join(format!("{name}.toml"))
}

/// Whether a file is one of a connection. What begins with a point is an editor's, or not whole yet.
pub(crate) fn is_document(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    path.extension().is_some_and(|extension| extension == "toml") && !is_hidden
}

/// The `NAME.toml` of a folder. A folder that isn't there has none.
fn toml_files(folder: &Path) -> Result<BTreeMap<ConnectionName, String>, ConfigError> {
    let unreadable = |path: &Path, source| ConfigError::Read { path: path.into(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.symlink_metadata().is_err() => {
            return Ok(BTreeMap::new());
        }
        other => other.map_err(|error| unreadable(folder, error))?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if is_document(&path) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name =
                ConnectionName::try_from(stem).map_err(|source| ConfigError::Name { path: path.clone(), source })?;
            files.insert(name, read::text(&path).map_err(|error| unreadable(&path, error))?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(names: &[(&str, &str)]) -> Documents {
        let all =
            |names: &[(&str, &str)]| names.iter().map(|(name, text)| (name.parse().unwrap(), (*text).into())).collect();
        Documents { connections: all(names), grants: all(&names[..names.len().min(1)]) }
    }

    #[test]
    fn what_is_stored_at_once_is_there_as_a_whole_and_some_of_what_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let configured = folder.path().join(CONFIGURED);
        let current = || Documents::of_folder(&configured.join(CURRENT)).unwrap();
        for n in 0..10 {
            let text = n.to_string();
            let stored = documents(&[("a", &text), ("b", &text)]);
            stored.store_at_once(&configured).unwrap();
            assert_eq!(current(), stored);
            // What a crash leaves: a folder that nobody names, a link that nobody follows.
            let counts = fs::read_link(configured.join(CURRENT)).unwrap();
            let next = counts.to_str().unwrap().parse::<u64>().unwrap() + 1;
            fs::create_dir(configured.join(next.to_string())).unwrap();
            symlink("nowhere", configured.join("next")).unwrap();
            assert_eq!(current(), stored);
        }
        assert!(fs::read_dir(&configured).unwrap().count() < 10);
    }

    #[test]
    fn others_come_in_their_place_or_alone() {
        let (ours, theirs) = (documents(&[("a", "1"), ("b", "2")]), documents(&[("b", "3"), ("c", "4")]));
        let all = ours.with(&theirs, false);
        assert_eq!(all.connections, documents(&[("a", "1"), ("b", "3"), ("c", "4")]).connections);
        assert_eq!(all.grants.len(), 2);
        assert_eq!(ours.with(&theirs, true), theirs);
        assert_eq!(all.only(&["c".parse().unwrap()]).connections.len(), 1);
    }
}
