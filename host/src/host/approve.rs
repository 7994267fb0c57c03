//! Approvals: what a connection's connector may ask for. All that it asks for when it is brought up; what an update adds, once
//! somebody with the role for it has approved that.

use std::sync::Arc;

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::ConnectionName;
use tidewaiter_core::schema::Capability;
use tidewaiter_core::state::Actor;

use super::{Host, HostError, StartError};
use crate::audit::{Audit, Event};
use crate::db::Db;
use crate::driver::{Awaiting, Connection};

/// Lets the connector of a connection ask for what is approved. That is noted the first time, and when the operator gave the
/// connection another connector.
pub(super) async fn bring_up(connection: &Connection, audit: &Audit, db: &Db) -> Result<(), StartError> {
    let (name, connector) = (&connection.name, &connection.config.connector);
    let Some(approved) = db.approved(name)?.filter(|approved| approved.connector == *connector) else {
        let approved = Approved::all(connector.clone(), &connection.connector.info().capabilities);
        if !approved.capabilities.is_empty() {
            let on = format!("{name}: {}", texts(&approved.capabilities));
            audit.note(&Event::Act { by: Actor::Host.to_string(), act: "bring up", on })?;
        }
        return Ok(db.approve(name, approved).await?);
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
        self.can_run(name)?;
        let connection = self.connections.get(name).ok_or_else(|| HostError::UnknownConnection(name.clone()))?;
        let connection = Arc::clone(connection);
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
        self.audit.act(&by, APPROVE, format!("{name}: {}", texts(&capabilities))).await?;
        let connector = connection.config.connector.clone();
        let before = self.db.approved(name)?.filter(|approved| approved.connector == connector);
        let before = before.unwrap_or(Approved { connector, capabilities: Vec::new() });
        let mut approved = before.clone();
        approved.capabilities.extend(capabilities);
        // In force first: whoever asked may go away meanwhile, and what is written down must not wait for a restart.
        connection.approve(&approved)?;
        if let Err(error) = self.db.approve(name, approved).await {
            connection.approve(&before)?;
            return Err(error.into());
        }
        tracing::info!(target: "tidewaiter", connection = %name, %by, id, "what awaited approval is approved");
        Ok(())
    }
}

fn texts(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const APPROVE: &str = "connections approve";
