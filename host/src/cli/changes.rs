//! `tidewaiter changes`: the journal, page by page, and on from there as it grows.

use serde_json::Value as Json;
use tidewaiter_core::name::ConsumerName;

use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::print;
use crate::host::Runs;
use crate::host::ask::{After, Answer, Ask, ProblemCode};

/// Entries asked for at a time.
const PAGE_COUNT: usize = 1000;
/// How long one question waits for entries.
const WAIT_MS: u64 = 20_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Those after this entry: its id, or its sequence
    #[arg(long, value_name = "ID", default_value = "0")]
    after: After,
    /// Those that a consumer has not acknowledged
    #[arg(long, value_name = "NAME", conflicts_with = "after")]
    consumer: Option<ConsumerName>,
    /// Acknowledge them once they are printed
    #[arg(long, requires = "consumer")]
    ack: bool,
    /// At most that many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// With the attributes that their source calls sensitive, which are masked otherwise; it is audited
    #[arg(long)]
    show_sensitive: bool,
    /// Go on as the journal grows, until interrupted or the server ends. Needs a running server
    #[arg(long)]
    follow: bool,
}

pub(super) async fn perform(site: &Site, arguments: Arguments, json: bool) -> Result<(), Fail> {
    let mut door = Door::open(site, Runs::Never).await?;
    let done = match arguments.follow && !door.is_remote() {
        true => Err(Fail::new(Exit::Refused, "--follow: no server runs that could journal anything")),
        false => pages(&mut door, arguments, json).await,
    };
    door.close().await;
    done
}

async fn pages(door: &mut Door, arguments: Arguments, json: bool) -> Result<(), Fail> {
    let Arguments { mut after, consumer, ack, limit, show_sensitive: sensitive, follow } = arguments;
    if let Some(consumer) = &consumer {
        let answer = door.ask(&Ask::ConsumerPosition(consumer.clone())).await?;
        let Answer::Position(position) = answer else { return Err(Fail::other_answer()) };
        after = After::Sequence(position);
    }
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        let wait_ms = if follow { WAIT_MS } else { 0 };
        let ask = Ask::Changes { after, limit: left.min(PAGE_COUNT), wait_ms, sensitive };
        let entries = match door.ask(&ask).await {
            Ok(Answer::Changes(entries)) => entries,
            Ok(_) => return Err(Fail::other_answer()),
            // Whoever follows does so until then.
            Err(problem) if follow && problem.code == ProblemCode::Gone => return Ok(()),
            Err(problem) => return Err(problem.into()),
        };
        match entries.last().map(next) {
            Some(Some(last)) => after = last,
            Some(None) => return Err(Fail::other_answer()),
            None if follow => continue,
            None => return Ok(()),
        }
        left -= entries.len().min(left);
        let line = |entry: &Json| if json { entry.to_string() } else { print::change(entry) };
        print::write(&entries.iter().map(|entry| line(entry) + "\n").collect::<String>())?;
        if let Some(consumer) = consumer.as_ref().filter(|_| ack) {
            door.ask(&Ask::ConsumerAck { consumer: consumer.clone(), upto: after }).await?;
        }
    }
    Ok(())
}

fn next(entry: &Json) -> Option<After> {
    entry["id"].as_str()?.parse().ok()
}
