//! What every part of a configuration may say by itself, and not beside the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidewaiter_core::name::TypeKey;

use super::{Access, Config, ConfigError, SinkConfig, SinkTo};
use crate::egress::{Credential, Kind};
use crate::secret::Source;

impl Config {
    /// Whether its parts fit together.
    pub(crate) fn fits_together(&self) -> Result<(), ConfigError> {
        self.kept_encrypted()?;
        self.distinct_ids()?;
        self.distinct_files()?;
        self.private()
    }

    /// Refresh tokens come in the place of others, and are only kept encrypted.
    fn kept_encrypted(&self) -> Result<(), ConfigError> {
        let refreshes =
            |credential: &&Credential| matches!(&credential.kind, Kind::OAuth(oauth) if oauth.refresh_token.is_some());
        for (name, config) in self.connections.iter().filter(|_| self.encryption.key.is_none()) {
            if let Some(credential) = config.access.credentials.iter().find(refreshes) {
                let message = format!(
                    "the connection {name} has the oauth2-refresh credential {}, whose tokens are only kept encrypted: add\n\
                     [encryption]\nkey = {{ file = \"secrets/db.key\" }}\nand make the key with `openssl rand -base64 32`",
                    credential.name
                );
                return Err(ConfigError::Invalid { path: self.file.clone(), message });
            }
        }
        Ok(())
    }

    fn distinct_ids(&self) -> Result<(), ConfigError> {
        let mut ids: BTreeMap<String, TypeKey> = BTreeMap::new();
        for second in self.keys() {
            let id = second.openidm_id();
            if let Some(first) = ids.insert(id.clone(), second.clone()) {
                return Err(ConfigError::SameId { first, second, id });
            }
        }
        Ok(())
    }

    /// No connector is granted what the host keeps to itself.
    fn private(&self) -> Result<(), ConfigError> {
        let file = |source: &Source| match source {
            Source::File(path) => Some(real(path)),
            Source::Env(_) | Source::Command(_) | Source::Own(_) => None,
        };
        let of_db = self.encryption.key.iter().chain(&self.encryption.old_keys);
        let of_connections = self.connections.values().flat_map(|config| config.access.sources());
        let of_sinks = self.sinks.values().flat_map(SinkConfig::sources);
        let sources = of_db.chain(of_connections.map(|(_, source)| source)).chain(of_sinks);
        let secrets: Vec<PathBuf> = sources.filter_map(file).collect();
        let data = real(&self.data);
        for Access { granted, granted_in, .. } in self.connections.values().map(|config| &config.access) {
            for folder in &granted.read {
                let real = real(folder);
                let message = if real.starts_with(&data) || data.starts_with(&real) {
                    exposes(folder, "the data of the host in", &data)
                } else if let Some(secret) = secrets.iter().find(|secret| secret.starts_with(&real)) {
                    exposes(folder, "the secret in", secret)
                } else {
                    continue;
                };
                return Err(ConfigError::Invalid { path: granted_in.clone(), message });
            }
        }
        Ok(())
    }

    fn distinct_files(&self) -> Result<(), ConfigError> {
        let mut files: BTreeMap<PathBuf, &String> = BTreeMap::new();
        for (second, sink) in &self.sinks {
            let SinkTo::Ndjson { path } = &sink.to else { continue };
            if let Some(first) = files.insert(real(path), second) {
                let (first, second, path) = (first.clone(), second.clone(), path.clone());
                return Err(ConfigError::SameFile { first, second, path });
            }
        }
        Ok(())
    }
}

/// What is wrong with a folder that is granted.
fn exposes(folder: &Path, what: &str, path: &Path) -> String {
    format!("read: whoever reads {} reads {what} {} too: grant another folder", folder.display(), path.display())
}

/// The same for every way to a file, whether it is there already or only its folder.
fn real(path: &Path) -> PathBuf {
    let in_folder = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}
