//! `tidewaiter access …`.

use clap::Subcommand;
use jiff::{Span, Timestamp, Zoned, tz::TimeZone};
use tidewaiter_core::access::Role;
use tidewaiter_core::name::AccessName;
use tidewaiter_core::time::UnixMillis;

use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::print;
use crate::clock::Clock;
use crate::host::Runs;
use crate::host::ask::{Answer, Ask};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The access tokens that there are, their roles, and until when
    List,
    /// Make an access token, and print it this once
    Add {
        /// What it is called; the audit names it
        name: AccessName,
        /// What may be done with it: `read`, `operate`, `security` or `admin`
        #[arg(long)]
        role: Role,
        /// When it ends to be one, as in `90d`, or a time as in `2027-01-01T00:00:00Z` [default: when it is revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Have an access token be none any more, at once
    Revoke {
        /// What it is called
        name: AccessName,
    },
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let ask = match command {
        Command::List => Ask::Access,
        Command::Add { name, role, expires } => {
            let expires = expires.map(|text| time(&text)).transpose()?;
            Ask::AccessAdd { name, role, expires }
        }
        Command::Revoke { name } => Ask::AccessRevoke(name),
    };
    let mut door = Door::open(site, Runs::Never).await?;
    let answer = door.ask(&ask).await;
    door.close().await;
    match answer? {
        Answer::Access(tokens) => print::out(json, &tokens, |tokens| print::access(tokens)),
        Answer::NewAccess(new) => print::out(json, &new, |new| new.token.clone()),
        _ => Err(Fail::other_answer()),
    }
}

/// A time from now on, or one of the wall clock.
fn time(text: &str) -> Result<UnixMillis, Fail> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(UnixMillis(time.as_millisecond()));
    }
    let bad = |problem: jiff::Error| {
        Fail::new(Exit::Usage, format!("--expires {text:?} is neither a span, as in `90d`, nor a time: {problem}"))
    };
    let span: Span = text.parse().map_err(bad)?;
    let now = Timestamp::from_millisecond(Clock::start().now().0).map_err(bad)?;
    let at = Zoned::new(now, TimeZone::UTC).checked_add(span).map_err(bad)?;
    Ok(UnixMillis(at.timestamp().as_millisecond()))
}
