//! `tidewaiter db …`, `backup` and `restore`: the data itself.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::print;
use crate::audit::{Audit, Event};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::{self, Checked, Keys, OpenError};
use crate::host::Runs;
use crate::host::ask::{Answer, Ask};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Look whether everything fits together; changes nothing
    Check {
        /// Read every entry, and every page of the file
        #[arg(long)]
        deep: bool,
    },
    /// Encrypt everything with the key that is configured now, or decrypt it where none is; while a server runs or not
    Rekey,
    /// Give room that nothing uses back to the file system. No server may run
    Compact,
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let is_examined = matches!(command, Command::Check { deep: true }) && examine(&site.host()?, json).await?;
    let mut door = Door::open(site, Runs::Never).await?;
    let done = match command {
        Command::Check { deep } => {
            let file = deep && !is_examined;
            check(&mut door, &Ask::DbCheck { deep, file }, json).await
        }
        Command::Rekey => rekey(&mut door, json).await,
        Command::Compact if door.is_remote() => {
            Err(Fail::new(Exit::Refused, "a server runs: stop it first, nothing else may work with the data meanwhile"))
        }
        Command::Compact => compact(&mut door, json).await,
    };
    door.close().await;
    done
}

/// Looks at the file before anything opens it. False: there is none, or a server has it open.
async fn examine(config: &Config, json: bool) -> Result<bool, Fail> {
    let (data, keys) = (config.data.clone(), keys(config).await?);
    let examined = tokio::task::spawn_blocking(move || db::examine(&data, "tidewaiter db check", &keys)).await;
    let examined = examined.map_err(|error| Fail::new(Exit::Host, error))?;
    let Some(problems) = examined.map_err(|error| Fail::of(Exit::Host, &error))? else { return Ok(false) };
    if problems.is_empty() {
        return Ok(true);
    }
    print::out(json, &Checked { problems, ..Checked::default() }, print::checked)?;
    Err(Fail::told(Exit::RunFailed))
}

pub(super) async fn keys(config: &Config) -> Result<Keys, Fail> {
    let keys = crate::host::seal::keys(&config.encryption).await;
    keys.map_err(|error| Fail::new(Exit::Usage, format!("encryption: {error}")))
}

async fn check(door: &mut Door, ask: &Ask, json: bool) -> Result<(), Fail> {
    let Answer::Checked(checked) = door.ask(ask).await? else { return Err(Fail::other_answer()) };
    print::out(json, &checked, print::checked)?;
    if checked.problems.is_empty() { Ok(()) } else { Err(Fail::told(Exit::RunFailed)) }
}

async fn rekey(door: &mut Door, json: bool) -> Result<(), Fail> {
    let Answer::Rekeyed(key) = door.ask(&Ask::DbRekey).await? else { return Err(Fail::other_answer()) };
    print::out(json, &key, |key| match key {
        Some(id) => format!("everything is encrypted with the key {id}; old keys are of use for copies only"),
        None => "nothing is encrypted any more: no key is configured".to_owned(),
    })
}

async fn compact(door: &mut Door, json: bool) -> Result<(), Fail> {
    let Answer::Compacted(given) = door.ask(&Ask::DbCompact).await? else { return Err(Fail::other_answer()) };
    print::out(json, &given, |given| (if *given { "done" } else { "there was nothing to give back" }).to_owned())
}

pub(super) async fn backup(site: &Site, to: &Path, json: bool) -> Result<(), Fail> {
    let to = std::path::absolute(to).map_err(|error| Fail::new(Exit::Usage, format!("{}: {error}", to.display())))?;
    let mut door = Door::open(site, Runs::Never).await?;
    let answer = door.ask(&Ask::Backup { to: to.clone() }).await;
    door.close().await;
    let Answer::BackedUp(last) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &last, |last| format!("everything up to entry {last} at least is in {}", to.display()))
}

pub(super) async fn restore(config: Config, from: PathBuf, json: bool) -> Result<(), Fail> {
    let by = super::door::ourselves()?;
    let (now, keys) = (Clock::start().now(), keys(&config).await?);
    let holder = ("tidewaiter restore", crate::host::OWNER_WAIT);
    let work = move || {
        let act = Event::Act { by: by.to_string(), act: "restore", on: format!("from {}", from.display()) };
        let note = || Audit::open(&config.data, Clock::start())?.note(&act);
        db::restore(&from, &config.data, holder, &by, now, &keys, || note().map_err(io::Error::other))
    };
    let restored = tokio::task::spawn_blocking(work).await.map_err(|error| Fail::new(Exit::Host, error))?;
    let incarnation = restored.map_err(|error| {
        let exit = match &error {
            OpenError::Owned { .. } | OpenError::There { .. } => Exit::Refused,
            OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::Unknown,
            _ => Exit::Host,
        };
        Fail::of(exit, &error)
    })?;
    print::out(json, &incarnation.to_string(), |id| {
        format!("restored as journal {id}: what was journaled after the copy was made comes again, behind a marker")
    })
}
