//! The sinks that the configuration names, each with its task to be, and waiting for those that are inline.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{RunReport, Trigger};
use tokio::sync::watch;

use super::{Host, HostError, StartError};
use crate::clock::Clock;
use crate::config::{Config, SinkTo};
use crate::db::Db;
use crate::driver::{Delivered, Delivery};
use crate::egress::{NoVault, Outside, SystemResolver, Trust};
use crate::sink::Sink;
use crate::sink::ndjson::NdjsonSink;
use crate::sink::webhook::WebhookSink;

/// The sinks that whoever asks for a run waits for, by name, and how far each is.
pub(super) type Inline = Vec<(String, watch::Receiver<Delivered>)>;

/// An entry that a sink hasn't got, though whoever asked for the run waited for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NotTaken {
    /// Which sink.
    pub sink: String,
    /// The sequence of the first entry of the run that it hasn't got.
    pub sequence: u64,
    /// Why not. It is tried again.
    pub problem: String,
}

/// A run, and what of it became known at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synced {
    /// How it ended.
    #[serde(flatten)]
    pub report: RunReport,
    /// What the first inline sink that failed hasn't got; none: they have everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<NotTaken>,
}

/// Makes every sink ready.
///
/// # Errors
/// One can't be made ready, or the db can't be read.
pub(super) fn deliveries(db: &Db, config: &Config, clock: Clock) -> Result<(Vec<Delivery>, Inline), StartError> {
    let outside = outside(config, clock)?;
    let (mut deliveries, mut inline) = (Vec::new(), Vec::new());
    for (name, written) in &config.sinks {
        let sink = sink(name, &written.to, &outside, clock);
        let opened = sink.and_then(|sink| Delivery::open(db.clone(), name.clone(), sink));
        let delivery = opened.map_err(|source| StartError::Sink { sink: name.clone(), source })?;
        if written.inline {
            inline.push((name.clone(), delivery.watch()));
        }
        deliveries.push(delivery);
    }
    Ok((deliveries, inline))
}

impl Host {
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
        for (name, delivered) in &self.inline {
            let mut delivered = delivered.clone();
            let stands = delivered.wait_for(|now| now.upto >= upto || now.problem.is_some()).await;
            // Its task ends when the host does.
            let Delivered { upto: has, problem } = stands.ok()?.clone();
            if let (true, Some(problem)) = (has < upto, problem) {
                let sequence = (has + 1).max((upto + 1).saturating_sub(entries));
                return Some(NotTaken { sink: name.clone(), sequence, problem });
            }
        }
        None
    }
}

/// Places of their own: connectors that take all of theirs keep no sink from its server.
fn outside(config: &Config, clock: Clock) -> Result<Outside, StartError> {
    let needs_trust = config.sinks.values().any(|sink| matches!(sink.to, SinkTo::Webhook(_)));
    let trust = if needs_trust { Trust::load(&config.trust)? } else { Trust::nobody() };
    let resolver = config.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
    Ok(Outside::new(resolver, trust, Arc::new(NoVault), clock))
}

fn sink(name: &str, written: &SinkTo, outside: &Outside, clock: Clock) -> io::Result<Box<dyn Sink>> {
    Ok(match written {
        SinkTo::Ndjson { path } => Box::new(NdjsonSink::new(name.to_owned(), path.clone())),
        SinkTo::Webhook(settings) => {
            let settings = settings.as_ref().clone();
            Box::new(WebhookSink::new(name.to_owned(), settings, outside, clock).map_err(io::Error::other)?)
        }
    })
}
