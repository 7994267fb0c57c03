//! `tidewaiter guard …`.

use clap::Subcommand;

use super::Type;
use super::door::{Door, Site};
use super::fail::Fail;
use super::print;
use super::token::token;
use crate::host::Runs;
use crate::host::ask::Ask;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let it pass: the next run journals what comes, however much it is
    Release(Type),
    /// Throw it away, and the token with it: the next run asks getLatestSyncToken, and syncs nothing
    Discard(Type),
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let (ask, said) = match command {
        Command::Release(of) => (Ask::Release(of.into()), "released; the next run journals what comes"),
        Command::Discard(of) => (Ask::Discard(of.into()), "discarded; it was"),
    };
    let mut door = Door::open(site, Runs::Never).await?;
    let done = token(&mut door, &ask).await;
    door.close().await;
    print::out(json, &done?, |view| format!("{said}:\n{}", print::token(view)))
}
