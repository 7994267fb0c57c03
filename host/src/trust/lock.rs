//! The lock file: what operators decided of files of connectors. It lies beside the configuration, and belongs with it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::ConnectorName;
use utoipa::ToSchema;

use super::is_older;
use crate::files;

const HEADER: &str = "# Which files connectors may be. Written by `tidewaiter connectors pin`, `pull`, `deny` and `quarantine`; keep it with the configuration.\n";
const VERSION: u32 = 1;
/// The largest one, in bytes.
const LOCK_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files of a connector that may be gone back to; more are forgotten.
const EARLIER_MAX: usize = 10;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub(super) version: u32,
    /// The file that each connector may be.
    #[serde(default)]
    pub connectors: BTreeMap<ConnectorName, Pin>,
    /// Where the files of connectors were pulled from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pulled: BTreeMap<ConnectorName, Pulled>,
    /// Files that nobody runs, by their hash, and why.
    #[serde(default)]
    pub denied: BTreeMap<String, String>,
    /// Connectors that nobody runs, whatever the file, and why.
    #[serde(default)]
    pub quarantined: BTreeMap<ConnectorName, String>,
}

/// The file that a connector may be. Files are named by their hash, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What it says of itself.
    pub version: String,
    /// Its hash.
    pub sha256: String,
    /// What was pinned before: it may be gone back to, and not put into the folder again. The newest first.
    #[serde(default)]
    pub earlier: Vec<String>,
}

/// A file of a connector that was pulled from a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pulled {
    /// Its place, as in `ghcr.io/acme/csv:1.2.0`.
    pub from: String,
    /// What that was: the digest of the manifest, as in `sha256:…`.
    pub digest: String,
    /// The hash of the file, in hexadecimal.
    pub sha256: String,
}

/// A lock file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct LockError {
    path: PathBuf,
    message: String,
}

impl Default for Lock {
    fn default() -> Self {
        let (connectors, pulled, denied, quarantined) = Default::default();
        Self { version: VERSION, connectors, pulled, denied, quarantined }
    }
}

impl Lock {
    /// Reads it. A file that isn't there says nothing.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let failed = |message: String| LockError { path: path.into(), message };
        let text = match files::text(path, LOCK_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|error| failed(error.to_string()))?,
        };
        let lock: Self = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
        match lock.version {
            VERSION => Ok(lock),
            newer => Err(failed(format!("version = {newer} is of a newer tidewaiter; this one reads {VERSION}"))),
        }
    }

    /// Writes it: the new file is there as a whole, or the old one still.
    ///
    /// # Errors
    /// It would be too large to be read, or the file system.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let failed = |message: String| LockError { path: path.into(), message };
        let text = toml::to_string(self).map_err(|error| failed(error.to_string()))?;
        let bytes = format!("{HEADER}{text}");
        // It is to be read again.
        if bytes.len() as u64 > LOCK_BYTES_MAX {
            return Err(failed(format!("it would have {} bytes; at most {LOCK_BYTES_MAX} are read", bytes.len())));
        }
        files::put(path, bytes.as_bytes(), 0o644).map_err(|error| failed(error.to_string()))
    }

    /// Pins a file of a connector. What was pinned before may still be gone back to.
    ///
    /// # Errors
    /// Its version is older than that of the one that is pinned, or can't be compared with it, and a downgrade isn't allowed.
    pub fn pin(&mut self, name: &ConnectorName, sha256: &str, version: &str, downgrade: bool) -> Result<(), String> {
        let known = self.connectors.get(name).filter(|pin| pin.sha256 != sha256 && is_older(version, &pin.version));
        if let Some(pin) = known.filter(|_| !downgrade) {
            let than = &pin.version;
            return Err(format!(
                "version {version:?} is not newer than {than:?}, which is pinned; --allow-downgrade pins it all the same"
            ));
        }
        let mut earlier = Vec::new();
        if let Some(before) = self.connectors.remove(name) {
            earlier.extend([before.sha256].into_iter().chain(before.earlier).filter(|other| other != sha256));
            earlier.truncate(EARLIER_MAX);
        }
        let pin = Pin { version: version.to_owned(), sha256: sha256.to_owned(), earlier };
        self.connectors.insert(name.clone(), pin);
        self.pulled.retain(|pulled, from| pulled != name || from.sha256 == sha256);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pinned_is_remembered_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidewaiter.lock");
        assert_eq!(Lock::read(&path).unwrap(), Lock::default());
        let (mut lock, csv) = (Lock::default(), "csv".parse().unwrap());
        for number in 0..15 {
            lock.pin(&csv, &format!("f{number}"), "1.0.0", false).unwrap();
        }
        lock.pin(&csv, "f13", "1.0.0", false).unwrap();
        assert!(lock.pin(&csv, "old", "0.9.0", false).is_err() && lock.connectors[&csv].sha256 == "f13");
        assert_eq!(lock.connectors[&csv].earlier[..3], ["f14", "f12", "f11"].map(str::to_owned));
        assert_eq!(lock.connectors[&csv].earlier.len(), EARLIER_MAX);
        lock.denied.insert("f1".into(), "a hole".into());
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        std::fs::write(&path, "version = 2\n").unwrap();
        assert!(Lock::read(&path).unwrap_err().to_string().contains("newer"));
    }
}
