//! The sinks that the configuration names, each with its task to be, and waiting for those that are inline.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{RunReport, Trigger};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::refused::refused;
use super::{Host, HostError, StartError};
use crate::clock::Clock;
use crate::config::{Config, SinkConfig, SinkTo};
use crate::db::Db;
use crate::driver::{Delivery, Reached};
use crate::egress::{NoVault, Outside, SystemResolver, Trust};
use crate::sink::Sink;
use crate::sink::ndjson::NdjsonSink;
use crate::sink::webhook::WebhookSink;

/// The sinks by name, and how far each is.
pub(super) type Sinks = BTreeMap<String, watch::Receiver<Reached>>;

/// An entry that a sink hasn't got, though whoever asked for the run waited for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NotTaken {
    /// Which sink.
    pub sink: String,
    /// The sequence of the first entry of the run that it hasn't got.
    pub sequence: u64,
    /// Why not.
    pub problem: String,
}

/// How far a sink is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SinkView {
    /// Which.
    pub sink: String,
    /// As in `webhook`.
    pub r#type: String,
    /// Whoever asks for a run waits for it.
    pub inline: bool,
    /// It has everything up to this sequence but its dead letters.
    pub position: u64,
    /// So many entries come after that.
    pub behind: u64,
    /// How many dead letters it has, with what waits for them.
    pub dead_letters: u64,
    /// Why the last attempt failed, or why there is none; none: nothing is wrong.
    pub problem: Option<String>,
}

/// A run, and what of it became known at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Synced {
    /// How it ended.
    #[serde(flatten)]
    pub report: RunReport,
    /// What the first inline sink that failed hasn't got; none: they have everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<NotTaken>,
}

/// A delivery for every sink. One that can't be made ready is tried again, as one that fails.
///
/// # Errors
/// TLS can't be set up for one, or the db can't be read.
pub(super) fn deliveries(db: &Db, config: &Config, clock: Clock) -> Result<(Vec<Delivery>, Sinks), StartError> {
    let outside = outside(config, clock)?;
    let (mut deliveries, mut sinks) = (Vec::new(), Sinks::new());
    for (name, written) in &config.sinks {
        let sink = sink(name, &written.to, &outside, clock);
        let sink = sink.map_err(|source| StartError::Sink { sink: name.clone(), source })?;
        let (delivery, reached) = Delivery::new((db.clone(), clock), name.clone(), sink, written.patience)?;
        sinks.insert(name.clone(), reached);
        deliveries.push(delivery);
    }
    Ok((deliveries, sinks))
}

impl Host {
    /// The sinks that are configured, and how far each is.
    ///
    /// # Errors
    /// The db.
    pub async fn sinks(&self) -> Result<Vec<SinkView>, HostError> {
        let refused = refused(&self.db, None).await?;
        let letters = |name: &String| refused.iter().filter(|(sink, _)| sink == name).count() as u64;
        let view = |(name, written): (&String, &SinkConfig)| {
            let (position, dead_letters) = (self.db.sink_position(name)?, letters(name));
            let nobody = || Some("no host runs that delivers: `tidewaiter serve` does".to_owned());
            let problem = self.sinks.get(name).map_or_else(nobody, |reached| reached.borrow().problem.clone());
            let (sink, r#type, inline) = (name.clone(), written.to.name().to_owned(), written.inline);
            let behind = self.db.last_sequence().saturating_sub(position);
            Ok(SinkView { sink, r#type, inline, position, behind, dead_letters, problem })
        };
        let config = self.config();
        let mut sinks = config.sinks.iter().map(view).collect::<Result<Vec<_>, HostError>>()?;
        // Whoever took one out of the configuration may have forgotten these.
        let left: BTreeSet<&String> = refused.iter().map(|(sink, _)| sink).collect();
        for name in left.into_iter().filter(|name| !config.sinks.contains_key(*name)) {
            let (position, dead_letters) = (self.db.sink_position(name)?, letters(name));
            let problem = Some("it is not in the configuration, and has dead letters".to_owned());
            let (sink, r#type, behind) = (name.clone(), "-".to_owned(), 0);
            sinks.push(SinkView { sink, r#type, inline: false, position, behind, dead_letters, problem });
        }
        Ok(sinks)
    }

    /// Runs live sync of a type, as `sync`, and waits until every inline sink has what the run journaled, or one fails to take it.
    ///
    /// # Errors
    /// As `sync`. That a sink failed is in the answer.
    pub async fn sync_and_deliver(&self, key: TypeKey, trigger: Trigger) -> Result<Synced, HostError> {
        let report = self.sync(key, trigger).await?;
        let undelivered = match report.deltas {
            0 => None,
            deltas => {
                self.closing.run_until_cancelled(self.undelivered(deltas, self.db.last_sequence())).await.flatten()
            }
        };
        Ok(Synced { report, undelivered })
    }

    /// What the first inline sink that fails before it has everything up to a sequence hasn't got of the last so many entries.
    async fn undelivered(&self, entries: u64, upto: u64) -> Option<NotTaken> {
        let config = self.config();
        let inline = |name: &String| config.sinks.get(name).is_some_and(|sink| sink.inline);
        for (name, reached) in self.sinks.iter().filter(|(name, _)| inline(name)) {
            let mut reached = reached.clone();
            let stands = reached.wait_for(|now| now.upto >= upto || now.problem.is_some()).await;
            // Its task ends when the host does.
            let Reached { upto: has, problem, letters } = stands.ok()?.clone();
            let first = (upto + 1).saturating_sub(entries);
            if let (true, Some(problem)) = (has < upto, problem) {
                let problem = match has + 1 {
                    before if before < first => {
                        format!("entry {before} comes before it, and is tried again: {problem}")
                    }
                    _ => format!("it is tried again: {problem}"),
                };
                return Some(NotTaken { sink: name.clone(), sequence: first.max(has + 1), problem });
            }
            if letters > 0
                && let Some(not_taken) = self.kept(name, first..=upto).await
            {
                return Some(not_taken);
            }
        }
        None
    }

    /// The first of these entries that is a dead letter of a sink.
    async fn kept(&self, sink: &str, entries: RangeInclusive<u64>) -> Option<NotTaken> {
        let refused = refused(&self.db, Some(sink.to_owned())).await.ok()?;
        let (_, one) = refused.into_iter().find(|(_, one)| entries.contains(&one.entry.id.sequence))?;
        let why = one.problem.unwrap_or_else(|| "it waits for another one of the same object, or for its turn".into());
        let problem = format!("dead letter {}: {why}", one.number);
        Some(NotTaken { sink: sink.to_owned(), sequence: one.entry.id.sequence, problem })
    }
}

/// Places of their own: connectors that take all of theirs keep no sink from its server.
pub(super) fn outside(config: &Config, clock: Clock) -> Result<Outside, StartError> {
    let is_webhook = |sink: &SinkConfig| matches!(sink.to, SinkTo::Webhook(_));
    let needs_trust = config.telemetry.is_some() || config.sinks.values().any(is_webhook);
    let trust = if needs_trust { Trust::load(&config.trust)? } else { Trust::nobody() };
    let resolver = config.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
    Ok(Outside::new(resolver, trust, Arc::new(NoVault), clock))
}

fn sink(name: &str, written: &SinkTo, outside: &Outside, clock: Clock) -> io::Result<Box<dyn Sink>> {
    Ok(match written {
        SinkTo::Ndjson { path } => Box::new(NdjsonSink::new(name.to_owned(), path.clone())),
        SinkTo::Own(own) => own.take().ok_or_else(|| io::Error::other("another host has it"))?,
        SinkTo::Webhook(settings) => {
            let settings = settings.as_ref().clone();
            Box::new(WebhookSink::new(name.to_owned(), settings, outside, clock).map_err(io::Error::other)?)
        }
    })
}
