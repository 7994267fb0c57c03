//! `tidewaiter connectors …`: looks at files, and at what runs of them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use minisign::SecretKeyBox;
use serde_json::{Value as Json, json};
use tidewaiter_core::name::ConnectorName;

use super::OURSELVES;
use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::{print, pull};
use crate::config::Config;
use crate::host::ask::{Answer, Ask};
use crate::host::{Bytes, Runs};
use crate::oci::Place;
use crate::trust::{Origin, Signed, Statement, Trusted, WORLD};
use crate::wasm::{Connector, Engine, EngineOptions};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The connectors in the configured folder
    List,
    /// What a connector's file says of itself: operations, settings, what it asks for
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// The files of a connector that were met, newest first, and which connections run each
    History {
        /// Its name
        connector: ConnectorName,
    },
    /// Let its connections run another file of it, from the token that they hold; the one in the folder isn't run again before it is another one
    Rollback {
        /// Its name
        connector: ConnectorName,
        /// The file whose hash begins so [default: the one that was run before]
        #[arg(long, value_name = "SHA256")]
        to: Option<String>,
    },
    /// Let connections run the file in the folder, though they went back from it
    Retry {
        /// Its name
        connector: ConnectorName,
        /// Also where its version is older than that of what runs: of signed files
        #[arg(long)]
        allow_downgrade: bool,
    },
    /// Let a connector ask for what an update of it needs beyond what was approved, in all its connections where that is what `connections show` has
    Approve {
        /// Its name
        connector: ConnectorName,
        /// The id that `connections show` prints beside what awaits approval
        id: String,
    },
    /// Trust the files of connectors that the folder has now, and no others: their hashes are written into tidewaiter.lock, and they run
    Pin {
        /// Their names
        #[arg(required = true)]
        connectors: Vec<ConnectorName>,
        /// Also a file whose version is older than that of the one that is pinned, or can't be compared with it
        #[arg(long)]
        allow_downgrade: bool,
    },
    /// Fetch a connector from an OCI registry into the folder and trust it, as `pin` does; tidewaiter.lock has its digest from then on
    Pull {
        /// Its artifact, as in ghcr.io/acme/csv:1.2.0 or ghcr.io/acme/csv@sha256:…
        #[arg(required_unless_present = "locked")]
        artifact: Option<Place>,
        /// Its name [default: the last part of the artifact's path]
        #[arg(long, requires = "artifact")]
        name: Option<ConnectorName>,
        /// Also where its version is older than that of the one that is pinned, or can't be compared with it
        #[arg(long, requires = "artifact")]
        allow_downgrade: bool,
        /// Fetch what tidewaiter.lock says, where the folder has something else
        #[arg(long, conflicts_with = "artifact")]
        locked: bool,
    },
    /// End what runs of these files of connectors now, whoever trusts them, and run them never again
    Deny {
        /// Their hashes, whole
        #[arg(required = true, value_name = "SHA256", value_parser = sha256)]
        files: Vec<String>,
        /// Why, for whoever looks
        #[arg(long)]
        why: Option<String>,
        /// Deny them no more
        #[arg(long, conflicts_with = "why")]
        lift: bool,
    },
    /// End what runs of a connector now, and run no file of it
    Quarantine {
        /// Its name
        connector: ConnectorName,
        /// Why, for whoever looks
        #[arg(long)]
        why: Option<String>,
        /// Let it run again
        #[arg(long, conflicts_with = "why")]
        end: bool,
    },
    /// Whether a file would be run, by what is trusted now. Nothing is made of it
    Verify {
        /// The file, NAME.wasm
        file: PathBuf,
    },
    /// Sign which file is which version of a connector: NAME.statement and NAME.statement.minisig, beside it
    Sign {
        /// The file, NAME.wasm
        file: PathBuf,
        /// A secret key of minisign: `minisign -G` makes one
        #[arg(long)]
        key: PathBuf,
        /// Where its password is; without it, it is asked for [of a key that has one]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

fn sha256(text: &str) -> Result<String, String> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "a hash has 64 hexadecimal digits; `connectors history` has them".to_owned())
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let (runs, ask) = match command {
        Command::History { connector } => (Runs::Never, Ask::Revisions(connector)),
        Command::Rollback { connector, to } => (Runs::WhenAsked, Ask::RollBack { connector, to }),
        Command::Retry { connector, allow_downgrade: downgrade } => {
            (Runs::WhenAsked, Ask::TryAgain { connector, downgrade })
        }
        Command::Approve { connector, id } => (Runs::WhenAsked, Ask::ApproveConnector { connector, id }),
        Command::List => return list(&site.host()?, json).await,
        Command::Verify { file } => return verify(&site.host()?, &file, json),
        Command::Inspect { .. } | Command::Sign { .. } => unreachable!("they need no configuration"),
        Command::Pin { connectors, allow_downgrade: downgrade } => {
            let pin = |connector| Ask::Pin { connector, downgrade };
            return decide(site, connectors.into_iter().map(pin).collect(), json).await;
        }
        Command::Pull { artifact: Some(place), name, allow_downgrade, .. } => {
            return pull::pull(site, &place, name, allow_downgrade, json).await;
        }
        Command::Pull { .. } => return pull::pull_locked(site, json).await,
        Command::Deny { files, why, lift } => return decide(site, vec![Ask::Deny { files, why, lift }], json).await,
        Command::Quarantine { connector, why, end } => {
            return decide(site, vec![Ask::Quarantine { connector, why, end }], json).await;
        }
    };
    let mut door = Door::open(site, runs).await?;
    let answer = door.ask(&ask).await;
    door.close().await;
    let Answer::Revisions(revisions) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &revisions, |revisions| print::revisions(revisions))
}

/// What is trusted from then on.
async fn decide(site: &Site, asks: Vec<Ask>, json: bool) -> Result<(), Fail> {
    let mut door = Door::open(site, Runs::WhenAsked).await?;
    let mut answer = Err(Fail::other_answer());
    for ask in asks {
        answer = door.ask(&ask).await.map_err(Fail::from);
        if answer.is_err() {
            break;
        }
    }
    door.close().await;
    let Answer::Lock(lock) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &lock, print::lock)
}

fn verify(config: &Config, file: &Path, json: bool) -> Result<(), Fail> {
    let (name, read) = read(file)?;
    let judged = config.connector_trust.judge(&name, &read.sha256, read.signed.as_ref(), Origin::Folder);
    let row = match &judged {
        Ok(Trusted { why, version }) => {
            json!({ "sha256": read.sha256, "trusted": true, "why": why, "version": version })
        }
        Err(distrust) => json!({ "sha256": read.sha256, "trusted": false, "why": distrust.to_string() }),
    };
    print::out(json, &row, |_| match &judged {
        Ok(Trusted { why, .. }) => format!("{} {name}: {why}\n", read.sha256),
        Err(distrust) => format!("{} {name}: not trusted: {distrust}\n", read.sha256),
    })?;
    if judged.is_ok() { Ok(()) } else { Err(Fail::told(Exit::RunFailed)) }
}

pub(super) async fn sign(file: &Path, key: &Path, password: Option<&Path>, json: bool) -> Result<(), Fail> {
    let read_text = |path: &Path| {
        let unreadable = |error| Fail::new(Exit::Usage, format!("{}: {error}", path.display()));
        std::fs::read_to_string(path).map_err(unreadable)
    };
    let text = read_text(key)?;
    let password =
        password.map(|path| Ok::<_, Fail>(read_text(path)?.trim_end_matches(['\r', '\n']).to_owned())).transpose()?;
    let secret = SecretKeyBox::from_string(&text).and_then(|text| match text.clone().into_unencrypted_secret_key() {
        Ok(secret) => Ok(secret),
        Err(_) => text.into_secret_key(password),
    });
    let unusable = |error| {
        Fail::new(Exit::Usage, format!("{} is no secret key of minisign that can be used: {error}", key.display()))
    };
    let secret = secret.map_err(unusable)?;
    let engine = engine(None)?;
    let connector = load(&engine, file).await?;
    let (name, sha256) = (connector.info().name.clone(), connector.sha256().to_owned());
    let statement = Statement { name, version: connector.info().version.clone(), world: WORLD.to_owned(), sha256 };
    let signed = Signed::new(&statement, &secret).map_err(|error| Fail::new(Exit::Host, error))?;
    for (extension, text) in [("statement", &signed.statement), ("statement.minisig", &signed.signature)] {
        let path = file.with_extension(extension);
        let unwritable = |error| Fail::new(Exit::Host, format!("{}: {error}", path.display()));
        std::fs::write(&path, text).map_err(unwritable)?;
    }
    print::out(json, &statement, |_| signed.statement.clone())
}

pub(super) async fn inspect(file: &Path, json: bool) -> Result<(), Fail> {
    let engine = engine(None)?;
    let connector = load(&engine, file).await?;
    print::out(json, connector.info(), print::info)
}

/// All of them; one that can't be loaded is listed with the reason.
pub(super) async fn list(config: &Config, json: bool) -> Result<(), Fail> {
    let engine = engine(Some(config.compiled()))?;
    let folder = &config.connectors;
    let unreadable = |error| Fail::new(Exit::Usage, format!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    let (mut rows, mut bad) = (Vec::new(), false);
    for file in files {
        let trusted = read(&file).and_then(|(name, read)| {
            let judged = config.connector_trust.judge(&name, &read.sha256, read.signed.as_ref(), Origin::Folder);
            let distrusted = |distrust| Fail::new(Exit::Usage, format!("{}: {distrust}", file.display()));
            judged.map(|_| (name, read)).map_err(distrusted)
        });
        let loaded = match trusted {
            Ok((name, read)) => load_bytes(&engine, &file, &name, &read).await,
            Err(fail) => Err(fail),
        };
        let row = match loaded {
            Ok(connector) => serde_json::to_value(connector.info()).unwrap_or(Json::Null),
            Err(fail) => {
                bad = true;
                json!({ "file": file, "problem": fail.to_string() })
            }
        };
        rows.push(row);
    }
    print::out(json, &rows, |rows| print::connectors(rows))?;
    if bad { Err(Fail::told(Exit::RunFailed)) } else { Ok(()) }
}

pub(super) fn engine(cache: Option<PathBuf>) -> Result<Engine, Fail> {
    let options = EngineOptions { compiler: Some(OURSELVES.into()), cache, ..EngineOptions::default() };
    Engine::new(&options)
        .map_err(|error| Fail::new(Exit::Host, format!("this machine can't run connectors: {error:#}")))
}

/// The bytes of a file, and the name that it has by its own.
fn read(file: &Path) -> Result<(ConnectorName, Bytes), Fail> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let read = Bytes::read(file).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::Unknown } else { Exit::Host };
        Fail::new(exit, format!("{}: {error}", file.display()))
    })?;
    let name = stem.parse().map_err(|error| Fail::new(Exit::Usage, format!("{}: {error}", file.display())))?;
    Ok((name, read))
}

async fn load(engine: &Engine, file: &Path) -> Result<Connector, Fail> {
    let (name, read) = read(file)?;
    load_bytes(engine, file, &name, &read).await
}

async fn load_bytes(engine: &Engine, file: &Path, name: &ConnectorName, read: &Bytes) -> Result<Connector, Fail> {
    let loaded = Connector::load(engine, name, &read.bytes).await;
    loaded.map_err(|error| Fail::new(Exit::Usage, format!("{}: {error}", file.display())))
}
