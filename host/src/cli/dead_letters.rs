//! `tidewaiter dead-letters …`.

use clap::Subcommand;
use tidewaiter_core::name::ConnectionName;

use super::door::{Door, Site};
use super::fail::Fail;
use super::print;
use crate::host::ask::{Answer, Ask};
use crate::host::{Runs, Settled};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Deltas that are not journaled, because their data is at fault, entries that a sink refuses, and what waits for either
    List {
        /// Of this connection only
        connection: Option<ConnectionName>,
    },
    /// One of them, with what came. Sensitive attributes are masked
    Show {
        /// Its number, as `list` has it
        number: u64,
    },
    /// Journal its object as it is now, and be done with all that are kept of it; or send its entry to the sink again
    ///
    /// Of deltas that are not journaled: where the connector reads objects by their uid, the object is read; it is journaled as deleted if it isn't there. Otherwise what came is
    /// journaled, if nothing is wrong with it any more and nothing waits for it. Of entries that a sink refuses: it is sent as it was journaled, and then
    /// what waits for it.
    Retry {
        /// Their numbers, as `list` has them
        #[arg(required = true)]
        numbers: Vec<u64>,
    },
    /// Give it up: it is never journaled, or never delivered to the sink, and what waits for it is
    ///
    /// What was said of an object that a sink never gets is forgotten, so that the next `reconcile` journals it again.
    Drop {
        /// Their numbers, as `list` has them
        #[arg(required = true)]
        numbers: Vec<u64>,
    },
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let (runs, asks): (_, Vec<Ask>) = match command {
        Command::List { connection } => (Runs::Never, vec![Ask::DeadLetters(connection)]),
        Command::Show { number } => (Runs::Never, vec![Ask::DeadLetter(number)]),
        Command::Retry { numbers } => (Runs::WhenAsked, numbers.into_iter().map(Ask::DeadLetterRetry).collect()),
        Command::Drop { numbers } => (Runs::Never, numbers.into_iter().map(Ask::DeadLetterDrop).collect()),
    };
    let mut door = Door::open(site, runs).await?;
    let (mut all, mut failed) = (Settled::default(), None);
    for ask in asks {
        // It may be done with already, for one that was named before it.
        if let Ask::DeadLetterRetry(number) | Ask::DeadLetterDrop(number) = ask
            && (all.settled.contains(&number) || all.released.contains(&number))
        {
            continue;
        }
        let answer = door.ask(&ask).await;
        match answer {
            Ok(Answer::Settled(Settled { settled, released, notes })) => {
                all.settled.extend(settled);
                all.released.extend(released);
                all.notes.extend(notes);
            }
            Ok(answer) => {
                door.close().await;
                return other(answer, json);
            }
            // The others have nothing to do with it.
            Err(problem) => {
                let fail = Fail::from(problem);
                fail.tell();
                failed.get_or_insert(fail.exit);
            }
        }
    }
    door.close().await;
    all.notes.dedup();
    match failed {
        Some(exit) if all.settled.is_empty() => Err(Fail::told(exit)),
        Some(exit) => print::out(json, &all, print::settled).and(Err(Fail::told(exit))),
        None => print::out(json, &all, print::settled),
    }
}

fn other(answer: Answer, json: bool) -> Result<(), Fail> {
    match answer {
        Answer::DeadLetters(letters) => print::out(json, &letters, |letters| print::dead_letters(letters)),
        Answer::DeadLetter(letter) => print::out(json, &letter, |letter| print::dead_letter(letter)),
        _ => Err(Fail::other_answer()),
    }
}
