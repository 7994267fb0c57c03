//! `tidewaiter consumers …`.

use clap::Subcommand;
use tidewaiter_core::name::ConsumerName;

use super::door::{Door, Site};
use super::fail::Fail;
use super::print;
use crate::host::Runs;
use crate::host::ask::{After, Answer, Ask};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Those who read the journal by themselves, and how far they got
    List,
    /// Let entries wait for a reader until it has acknowledged them
    Add {
        /// Its name
        consumer: ConsumerName,
        /// It has everything up to this entry: its id, or its sequence [default: nothing]
        #[arg(long, value_name = "ID", default_value = "0")]
        after: After,
        /// Let it expire when more entries than that wait for it [default: never]
        #[arg(long, value_name = "COUNT")]
        max_lag: Option<u64>,
    },
    /// A reader has everything up to this entry
    Ack {
        /// Its name
        consumer: ConsumerName,
        /// The entry: its id, or its sequence. After a restore its id, which names the journal to go on in
        #[arg(value_name = "ID")]
        upto: After,
    },
    /// Let nothing wait for a reader any more
    Remove {
        /// Its name
        consumer: ConsumerName,
    },
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let mut door = Door::open(site, Runs::Never).await?;
    let ask = match command {
        Command::List => Ask::Consumers,
        Command::Add { consumer, after, max_lag } => Ask::ConsumerAdd { consumer, after, max_lag },
        Command::Ack { consumer, upto } => Ask::ConsumerAck { consumer, upto },
        Command::Remove { consumer } => Ask::ConsumerRemove(consumer),
    };
    let answer = door.ask(&ask).await;
    door.close().await;
    let Answer::Consumers(consumers) = answer? else { return Err(Fail::other_answer()) };
    print::out(json, &consumers, |consumers| print::consumers(consumers))
}
