//! `tidewaiter dead-letters …`.

use clap::Subcommand;
use tidewaiter_core::name::ConnectionName;

use super::door::Door;
use super::fail::Fail;
use super::print;
use crate::config::Config;
use crate::host::Runs;
use crate::host::ask::{Answer, Ask};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Deltas that are not journaled, because their data is at fault, and those that wait for them
    List {
        /// Of this connection only
        connection: Option<ConnectionName>,
    },
    /// One of them, with what came. Sensitive attributes are masked
    Show {
        /// Its number, as `list` has it
        number: u64,
    },
    /// Journal its object as it is now, and be done with all that are kept of it
    ///
    /// Where the connector reads objects by their uid, the object is read; it is journaled as deleted if it isn't there. Otherwise what came is
    /// journaled, if nothing is wrong with it any more and nothing waits for it.
    Retry {
        /// Its number, as `list` has it
        number: u64,
    },
    /// Give it up: it is never journaled, and what waits for it is
    Drop {
        /// Its number, as `list` has it
        number: u64,
    },
}

pub(super) async fn perform(config: Config, command: Command, json: bool) -> Result<(), Fail> {
    let (runs, ask) = match command {
        Command::List { connection } => (Runs::Never, Ask::DeadLetters(connection)),
        Command::Show { number } => (Runs::Never, Ask::DeadLetter(number)),
        Command::Retry { number } => (Runs::WhenAsked, Ask::DeadLetterRetry(number)),
        Command::Drop { number } => (Runs::Never, Ask::DeadLetterDrop(number)),
    };
    let mut door = Door::open(config, runs).await?;
    let answer = door.ask(&ask).await;
    door.close().await;
    match answer? {
        Answer::DeadLetters(letters) => print::out(json, &letters, |letters| print::dead_letters(letters)),
        Answer::DeadLetter(letter) => print::out(json, &letter, |letter| print::dead_letter(letter)),
        Answer::Settled(settled) => print::out(json, &settled, print::settled),
        _ => Err(Fail::other_answer()),
    }
}
