//! `tidewaiter connectors pull`: a connector from a registry into the folder of connectors, and into the lock where from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tidewaiter_core::name::ConnectorName;

use super::connectors::engine;
use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::print;
use crate::config::Config;
use crate::files;
use crate::host::ask::{Answer, Ask};
use crate::host::{Bytes, Runs, beside};
use crate::oci::{Artifact, Place};
use crate::trust::{Distrust, Lock, Origin, Pulled};
use crate::wasm::{COMPONENT_BYTES_MAX, Connector};

/// What was put into the folder.
#[derive(Serialize)]
struct Put {
    connector: ConnectorName,
    #[serde(flatten)]
    pulled: Pulled,
}

/// Pulls an artifact, has its digest in the lock, and trusts it as far as pinning goes.
pub(super) async fn pull(
    site: &Site,
    place: &Place,
    name: Option<ConnectorName>,
    downgrade: bool,
    json: bool,
) -> Result<(), Fail> {
    let config = site.host()?;
    let unnamed = |error| Fail::new(Exit::Usage, format!("{place}: {error}; --name says how the connector is called"));
    let connector = name.map_or_else(|| place.name().parse().map_err(unnamed), Ok)?;
    let (file, digest) = fetched(&config, place).await?;
    let pulled = Pulled { from: place.named(), digest, sha256: file.sha256.clone() };
    match judged(&config, &connector, &file) {
        // That is what is decided now.
        Ok(()) | Err(Distrust::NotPinned { .. } | Distrust::Earlier { .. }) => {}
        Err(distrust) => return Err(Fail::new(Exit::Refused, format!("{place}: {distrust}"))),
    }
    // What is no connector of this name doesn't come into the folder.
    let engine = engine(Some(config.compiled()))?;
    let loaded = Connector::load(&engine, &connector, &file.bytes).await;
    loaded.map_err(|error| Fail::new(Exit::Refused, format!("{place}: {error}")))?;
    let before = Before::of(&config, &connector)?;
    before.replace(&file)?;
    let asked = Ask::Pin { connector: connector.clone(), downgrade, pulled: Some(pulled.clone()) };
    let answer = match Door::open(site, Runs::WhenAsked).await {
        Ok(mut door) => {
            let answer = door.ask(&asked).await;
            door.close().await;
            answer.map_err(Fail::from)
        }
        Err(fail) => Err(fail),
    };
    match answer {
        Ok(Answer::Lock(_)) => print::out(json, &[Put { connector, pulled }], |put| told(put)),
        Ok(_) => Err(Fail::other_answer()),
        Err(fail) => {
            before.put_back()?;
            Err(fail)
        }
    }
}

/// Pulls what the lock says, where the folder has something else.
pub(super) async fn pull_locked(site: &Site, json: bool) -> Result<(), Fail> {
    let config = site.host()?;
    let lock = Lock::read(&config.connector_trust.lock).map_err(|error| Fail::new(Exit::Usage, error))?;
    let mut put = Vec::new();
    for (connector, pulled) in lock.pulled {
        let path = config.connector(&connector);
        if Bytes::read(&path).is_ok_and(|there| there.sha256 == pulled.sha256) {
            continue;
        }
        let of_lock = |problem: String| {
            Fail::new(Exit::Usage, format!("{}: pulled.{connector}: {problem}", config.connector_trust.lock.display()))
        };
        let place = pulled.from.parse::<Place>().or_else(|_| format!("{}@{}", pulled.from, pulled.digest).parse());
        let place = place.map_err(of_lock)?.at(&pulled.digest);
        let (file, _) = fetched(&config, &place).await?;
        if file.sha256 != pulled.sha256 {
            let problem = format!("the file in {place} has the hash {}", file.sha256);
            return Err(Fail::new(Exit::Refused, of_lock(problem)));
        }
        judged(&config, &connector, &file).map_err(|distrust| Fail::new(Exit::Refused, distrust))?;
        Before::of(&config, &connector)?.replace(&file)?;
        put.push(Put { connector, pulled });
    }
    print::out(json, &put, |put| told(put))
}

fn told(put: &[Put]) -> String {
    let line = |Put { connector, pulled: Pulled { from, digest, sha256 } }: &Put| {
        format!("{connector} {sha256} from {from} {digest}\n")
    };
    match put {
        [] => "the folder has what the lock says\n".to_owned(),
        put => put.iter().map(line).collect(),
    }
}

async fn fetched(config: &Config, place: &Place) -> Result<(Bytes, String), Fail> {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {elapsed}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |came, of| {
        shown.set_length(of);
        shown.set_position(came);
    };
    let pulled = Box::pin(place.pull(config.trust.clone(), progress)).await;
    bar.finish_and_clear();
    let Artifact { bytes, signed, digest } = pulled.map_err(|error| Fail::new(Exit::RunFailed, error))?;
    Ok((Bytes::of(bytes, signed), digest))
}

fn judged(config: &Config, connector: &ConnectorName, file: &Bytes) -> Result<(), Distrust> {
    let trust = &config.connector_trust;
    trust.judge(connector, &file.sha256, file.signed.as_ref(), Origin::Folder).map(drop)
}

/// What the folder had of a connector.
struct Before {
    /// The component, its statement, and the signature of that.
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Before {
    fn of(config: &Config, connector: &ConnectorName) -> Result<Self, Fail> {
        let path = config.connector(connector);
        let [statement, signature] = beside(&path);
        let mut all = Vec::new();
        for path in [statement, signature, path] {
            let had = match files::bytes(&path, COMPONENT_BYTES_MAX as u64) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                had => Some(had.map_err(|error| Fail::new(Exit::Host, format!("{}: {error}", path.display())))?),
            };
            all.push((path, had));
        }
        Ok(Self { files: all })
    }

    /// The statement comes before what it is of.
    fn replace(&self, file: &Bytes) -> Result<(), Fail> {
        let (statement, signature) = match &file.signed {
            Some(signed) => (Some(signed.statement.as_bytes()), Some(signed.signature.as_bytes())),
            None => (None, None),
        };
        for ((path, _), bytes) in self.files.iter().zip([statement, signature, Some(&file.bytes)]) {
            if let Some(bytes) = bytes {
                put(path, bytes)?;
            }
        }
        Ok(())
    }

    fn put_back(&self) -> Result<(), Fail> {
        for (path, had) in &self.files {
            match had {
                Some(bytes) => put(path, bytes)?,
                None => match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(path, &error)),
                    _ => {}
                },
            }
        }
        Ok(())
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Fail> {
    files::put(path, bytes, 0o644).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Fail {
    Fail::new(Exit::Host, format!("{}: {error}", path.display()))
}
