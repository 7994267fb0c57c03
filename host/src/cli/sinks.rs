//! `tidewaiter sinks …`.

use clap::Subcommand;

use super::door::{Door, Site};
use super::fail::Fail;
use super::print;
use crate::host::Runs;
use crate::host::ask::{Answer, Ask};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The sinks that are configured: up to which entry each has everything, how many come after it, and why it gets no further
    List,
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let Command::List = command;
    let mut door = Door::open(site, Runs::Never).await?;
    let answer = door.ask(&Ask::Sinks).await;
    door.close().await;
    let Answer::Sinks(sinks) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &sinks, |sinks| print::sinks(sinks))
}
