//! The sinks that the configuration names, each with its task to be.

use std::io;
use std::sync::Arc;

use super::StartError;
use crate::clock::Clock;
use crate::config::{Config, SinkConfig};
use crate::db::Db;
use crate::driver::Delivery;
use crate::egress::{NoVault, Outside, SystemResolver, Trust};
use crate::sink::Sink;
use crate::sink::ndjson::NdjsonSink;
use crate::sink::webhook::WebhookSink;

/// Makes every sink ready.
///
/// # Errors
/// One can't be made ready, or the db can't be read.
pub(super) fn deliveries(db: &Db, config: &Config, clock: Clock) -> Result<Vec<Delivery>, StartError> {
    let outside = outside(config, clock)?;
    let open = |(name, written): (&String, &SinkConfig)| {
        let sink = sink(name, written, &outside, clock);
        let opened = sink.and_then(|sink| Delivery::open(db.clone(), name.clone(), sink));
        opened.map_err(|source| StartError::Sink { sink: name.clone(), source })
    };
    config.sinks.iter().map(open).collect()
}

/// Places of their own: connectors that take all of theirs keep no sink from its server.
fn outside(config: &Config, clock: Clock) -> Result<Outside, StartError> {
    let needs_trust = config.sinks.values().any(|sink| matches!(sink, SinkConfig::Webhook(_)));
    let trust = if needs_trust { Trust::load(&config.trust)? } else { Trust::nobody() };
    let resolver = config.resolver.clone().unwrap_or_else(|| Arc::new(SystemResolver));
    Ok(Outside::new(resolver, trust, Arc::new(NoVault), clock))
}

fn sink(name: &str, written: &SinkConfig, outside: &Outside, clock: Clock) -> io::Result<Box<dyn Sink>> {
    Ok(match written {
        SinkConfig::Ndjson { path } => Box::new(NdjsonSink::new(name.to_owned(), path.clone())),
        SinkConfig::Webhook(settings) => {
            let settings = settings.as_ref().clone();
            Box::new(WebhookSink::new(name.to_owned(), settings, outside, clock).map_err(io::Error::other)?)
        }
    })
}
