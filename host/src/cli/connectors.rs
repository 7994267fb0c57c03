//! `tidewaiter connectors …`: looks at files, and at what runs of them.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value as Json, json};
use tidewaiter_core::name::ConnectorName;

use super::OURSELVES;
use super::door::Door;
use super::fail::{Exit, Fail};
use super::print;
use crate::config::Config;
use crate::host::ask::{Answer, Ask};
use crate::host::{Bytes, Runs};
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
    },
}

pub(super) async fn perform(config: Config, command: Command, json: bool) -> Result<(), Fail> {
    let (runs, ask) = match command {
        Command::History { connector } => (Runs::Never, Ask::Revisions(connector)),
        Command::Rollback { connector, to } => (Runs::WhenAsked, Ask::RollBack { connector, to }),
        Command::Retry { connector } => (Runs::WhenAsked, Ask::TryAgain(connector)),
        Command::List => return list(&config, json).await,
        Command::Inspect { file } => return inspect(&file, json).await,
    };
    let mut door = Door::open(config, runs).await?;
    let answer = door.ask(&ask).await;
    door.close().await;
    let Answer::Revisions(revisions) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &revisions, |revisions| print::revisions(revisions))
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
        let row = match load(&engine, &file).await {
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

fn engine(cache: Option<PathBuf>) -> Result<Engine, Fail> {
    let options = EngineOptions { compiler: Some(OURSELVES.into()), cache, ..EngineOptions::default() };
    Engine::new(&options)
        .map_err(|error| Fail::new(Exit::Host, format!("this machine can't run connectors: {error:#}")))
}

async fn load(engine: &Engine, file: &Path) -> Result<Connector, Fail> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let read = Bytes::read(file).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::Unknown } else { Exit::Host };
        Fail::new(exit, format!("{}: {error}", file.display()))
    })?;
    let named = |problem: &dyn std::fmt::Display| Fail::new(Exit::Usage, format!("{}: {problem}", file.display()));
    let name: ConnectorName = stem.parse().map_err(|error| named(&error))?;
    Connector::load(engine, &name, &read.bytes).await.map_err(|error| named(&error))
}
