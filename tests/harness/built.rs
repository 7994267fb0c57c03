//! What a run needs that is built here and not read from files: a description and a configuration, plain as can be.

use std::sync::Arc;

use serde_json::Value as Json;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::driver::{Connection, Source};
use tidewaiter::egress::Outside;
use tidewaiter_core::grant::BadAsk;
use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::schema::{ConnectorInfo, Operation};
use tidewaiter_core::state::From;

/// What a connector says of itself that only does live sync and asks for nothing.
pub fn info(name: &str) -> ConnectorInfo {
    ConnectorInfo {
        name: name.into(),
        version: "0.1.0".into(),
        summary: String::new(),
        licence: String::new(),
        operations: vec![Operation::LiveSync],
        settings_schema: "{}".into(),
        settings_version: 1,
        token_formats_read: vec![],
        token_format_written: String::new(),
        capabilities: vec![],
        all_classes: false,
    }
}

/// A connection whose connector may ask for all that it asks for, and that sends nothing outside.
pub fn connection(
    name: ConnectionName,
    config: ConnectionConfig,
    source: Arc<dyn Source>,
) -> Result<Connection, BadAsk> {
    let approved = Approved::all(config.connector.clone(), &source.info().capabilities);
    Connection::new(name, Arc::new(config), source, &approved, &Outside::default())
}

/// A connection to it with one type, `account`, that runs when asked.
pub fn connection_config(connector: &str, settings: Json, from: From, limits: Limits) -> ConnectionConfig {
    let account = TypeConfig { class: "account".into(), from, ..TypeConfig::default() };
    let written = ConnectionConfig::new(connector.parse().unwrap(), settings);
    ConnectionConfig { limits, ..written.object_type("account".parse().unwrap(), account) }
}
