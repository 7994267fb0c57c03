//! `tidewaiter token …`.

use clap::{Subcommand, ValueEnum};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::encoded;
use tidewaiter_core::token::SyncToken;

use super::Type;
use super::door::{Door, Site};
use super::fail::{Exit, Fail};
use super::print;
use crate::host::Runs;
use crate::host::ask::{Answer, Ask};
use crate::host::view::TokenView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The token that is held, and why
    Get(Type),
    /// Go on from another token: the next run begins there. Ends a run under way
    Set {
        #[command(flatten)]
        of: Type,
        /// The token; binary ones in base64
        #[arg(allow_hyphen_values = true)]
        token: String,
        /// Its type [default: that of the token that is held]
        #[arg(long = "type", value_enum)]
        kind: Option<Kind>,
    },
    /// Throw the token away: the next run asks getLatestSyncToken, and syncs nothing. Ends a run under way
    Reset(Type),
    /// Go back to an earlier token of the history: what came after it comes again. Ends a run under way
    Rewind {
        #[command(flatten)]
        of: Type,
        /// The revision of a row of the history [default: the newest row with another token than is held]
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
    },
    /// What became of the token, newest first
    History {
        #[command(flatten)]
        of: Type,
        /// At most that many rows
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Integer,
    Text,
    Binary,
}

pub(super) async fn perform(site: &Site, command: Command, json: bool) -> Result<(), Fail> {
    let mut door = Door::open(site, Runs::Never).await?;
    let done = answer(&mut door, command, json).await;
    door.close().await;
    done
}

async fn answer(door: &mut Door, command: Command, json: bool) -> Result<(), Fail> {
    match command {
        Command::Get(of) => print::out(json, &token(door, &Ask::Token(of.into())).await?, print::token),
        Command::Reset(of) => {
            let key = TypeKey::from(of);
            let before = token(door, &Ask::TokenReset(key)).await?;
            print::out(json, &before, |before| format!("reset; it was:\n{}", print::token(before)))
        }
        Command::Set { of, token: written, kind } => {
            let key = TypeKey::from(of);
            let kind = match kind {
                Some(kind) => kind,
                None => held(&token(door, &Ask::Token(key.clone())).await?)?,
            };
            let set = Ask::TokenSet { key, token: parse(&written, kind)? };
            print::out(json, &token(door, &set).await?, print::token)
        }
        Command::Rewind { of, to } => {
            let rewind = Ask::TokenRewind { key: of.into(), to };
            print::out(json, &token(door, &rewind).await?, print::token)
        }
        Command::History { of, limit } => match door.ask(&Ask::TokenHistory { key: of.into(), limit }).await? {
            Answer::TokenHistory(rows) => print::out(json, &rows, |rows| print::history(rows)),
            _ => Err(Fail::other_answer()),
        },
    }
}

pub(super) async fn token(door: &mut Door, ask: &Ask) -> Result<TokenView, Fail> {
    match door.ask(ask).await? {
        Answer::Token(view) => Ok(*view),
        _ => Err(Fail::other_answer()),
    }
}

fn held(view: &TokenView) -> Result<Kind, Fail> {
    match &view.token {
        Some(SyncToken::Integer(_)) => Ok(Kind::Integer),
        Some(SyncToken::Text(_)) => Ok(Kind::Text),
        Some(SyncToken::Binary(_)) => Ok(Kind::Binary),
        None => {
            let message = format!("{}: no token is held whose type the new one could have; say --type", view.key);
            Err(Fail::new(Exit::Usage, message))
        }
    }
}

fn parse(written: &str, kind: Kind) -> Result<SyncToken, Fail> {
    let bad = |what: &str| {
        Fail::new(Exit::Usage, format!("{written:?} is not {what}; for a token of another type, say --type"))
    };
    match kind {
        Kind::Integer => written.parse().map(SyncToken::Integer).map_err(|_| bad("a whole number of 64 bits")),
        Kind::Text => Ok(SyncToken::Text(written.to_owned())),
        Kind::Binary => encoded::from_text(written).map(SyncToken::Binary).ok_or_else(|| bad("base64")),
    }
}
