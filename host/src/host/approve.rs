//! Approvals: what a connection's connector may ask for. All that it asks for when it is brought up; what an update adds, once
//! somebody with the role for it has approved that.

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::state::Actor;

use super::{Host, HostError, StartError};
use crate::audit::Event;
use crate::db::Db;
use crate::driver::{Awaiting, Connection};

/// Lets the connector of a connection ask for what is approved. That is noted the first time, and when the operator gave the
/// connection another connector.
pub(super) async fn bring_up(connection: &Connection, db: &Db) -> Result<(), StartError> {
    let (name, connector) = (&connection.name, &connection.config.connector);
    let Some(approved) = db.approved(name)?.filter(|approved| approved.connector == *connector) else {
        let requests = &connection.connector.info().capabilities;
        return Ok(db.approve(name, Approved::all(connector.clone(), requests)).await?);
    };
    let refused = |source| StartError::Capability { connection: name.clone(), source };
    connection.approve(&approved).map_err(refused)?;
    if let Some(Awaiting { capabilities, id }) = &connection.allowed().awaiting {
        tracing::warn!(
            target: "tidewaiter", connection = %name, requests = capabilities.len(), id,
            "an update of {connector} asks for more than was approved, and doesn't get it: see `tidewaiter connections show {name}`"
        );
    }
    Ok(())
}

impl Host {
    /// Lets the connector of a connection ask for what awaits approval, from its next run on. `id` is that of what was shown.
    ///
    /// # Errors
    /// Unknown; something else awaits approval; `by` has not the role `security`; or the db.
    pub async fn approve(&self, name: &ConnectionName, id: &str, by: Actor) -> Result<(), HostError> {
        let connection = self.connections.get(name).ok_or_else(|| HostError::UnknownConnection(name.clone()))?;
        let _alone = self.approving.lock().await;
        let awaiting = connection.allowed().awaiting.clone();
        if !self.config.has_role_security(&by) {
            let asked = Event::NotAllowed { by: by.to_string(), act: APPROVE, on: name.to_string() };
            self.audit.note(&asked)?;
            return Err(HostError::NotSecurity { by });
        }
        let Some(Awaiting { capabilities, id }) = awaiting.clone().filter(|awaiting| awaiting.id == id) else {
            let (connection, now) = (name.clone(), awaiting.map(|awaiting| awaiting.id));
            return Err(HostError::NotAwaited { connection, id: id.to_owned(), now });
        };
        let names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
        self.audit.act(&by, APPROVE, format!("{name}: {}", names.join(", "))).await?;
        let connector = connection.config.connector.clone();
        let before = self.db.approved(name)?.filter(|approved| approved.connector == connector);
        let mut approved = before.unwrap_or(Approved { connector, capabilities: Vec::new() });
        approved.capabilities.extend(capabilities);
        self.db.approve(name, approved.clone()).await?;
        connection.approve(&approved)?;
        tracing::info!(target: "tidewaiter", connection = %name, %by, id, "what awaited approval is approved");
        Ok(())
    }
}

const APPROVE: &str = "connections approve";
