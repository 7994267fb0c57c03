//! Approvals: what a connection's connector may ask for. All that it asks for when it is brought up; what an update adds, once
//! somebody with the role for it has approved that.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewaiter_core::grant::approval::Approved;
use tidewaiter_core::name::{ConnectionName, ConnectorName};
use tidewaiter_core::schema::{Capability, ConnectorInfo};
use tidewaiter_core::state::Actor;

use super::{Host, HostError, StartError};
use crate::audit::{Audit, Event};
use crate::db::Db;
use crate::driver::{Awaiting, Connection};

/// What is approved for a connection, of those that are known: of a new one, or one that the operator gave another connector, all that
/// it asks for.
pub(super) fn of(known: Option<Approved>, connector: &ConnectorName, info: &ConnectorInfo) -> Approved {
    let known = known.filter(|approved| approved.connector == *connector);
    known.unwrap_or_else(|| Approved::all(connector.clone(), &info.capabilities))
}

/// Notes what is approved for a connection that was not known.
pub(super) async fn bring_up(
    name: &ConnectionName,
    approved: Approved,
    audit: &Audit,
    db: &Db,
) -> Result<(), StartError> {
    if !approved.capabilities.is_empty() {
        let on = format!("{name}: {}", texts(&approved.capabilities));
        audit.note(&Event::Act { by: Actor::Host.to_string(), act: "bring up", on })?;
    }
    Ok(db.approve(name, approved).await?)
}

/// Says what an update asks for in vain.
pub(super) fn tell(connection: &Connection) {
    if let Some(Awaiting { capabilities, id }) = &connection.allowed().awaiting {
        let (name, connector) = (&connection.name, &connection.config.connector);
        tracing::warn!(
            target: "tidewaiter", connection = %name, requests = capabilities.len(), id,
            "an update of {connector} asks for more than was approved, and doesn't get it: see `tidewaiter connections show {name}`"
        );
    }
}

impl Host {
    /// Lets the connector of a connection ask for what awaits approval, from its next run on. `id` is that of what was shown.
    ///
    /// # Errors
    /// Unknown; something else awaits approval; `by` has not the role `security`; or the db.
    pub async fn approve(&self, name: &ConnectionName, id: &str, by: Actor) -> Result<(), HostError> {
        self.decides(&by, APPROVE, name.as_str())?;
        let (connection, id, approving) = (self.placed(name)?, id.to_owned(), Arc::clone(&self.approving));
        let (db, audit, reviser) = (self.db.clone(), self.audit.clone(), self.reviser.clone());
        self.act(async move {
            let _alone = approving.lock().await;
            let name = &connection.name;
            let awaiting = connection.awaiting();
            let Some(Awaiting { capabilities, .. }) = awaiting.clone().filter(|awaiting| awaiting.id == id) else {
                let now = awaiting.map(|awaiting| awaiting.id);
                return Err(HostError::NotAwaited { connection: name.clone(), id, now });
            };
            let connector = connection.config.connector.clone();
            let mut approved = of(db.approved(name)?, &connector, connection.connector.info());
            approved.capabilities.extend(capabilities.iter().cloned());
            // What can't be told can't be approved.
            let allowed = connection.with(&approved)?;
            audit.act(&by, APPROVE, format!("{name}: {}", texts(&capabilities))).await?;
            db.approve(name, approved).await?;
            connection.allow(allowed);
            tracing::info!(target: "tidewaiter", connection = %name, %by, id, "what awaited approval is approved");
            match reviser {
                // What waited for it runs now.
                Some(reviser) => reviser.revise_told(&connector).await,
                None => Ok(()),
            }
        })
        .await
    }

    /// As `approve`, for all connections of a connector where it is that.
    ///
    /// # Errors
    /// As `approve`, for the first that fails; or it is that in none.
    pub async fn approve_all(&self, connector: &ConnectorName, id: &str, by: Actor) -> Result<(), HostError> {
        self.decides(&by, APPROVE, connector.as_str())?;
        let mut others = BTreeMap::new();
        let mut approved = false;
        for connection in self.roster.of(connector) {
            match connection.awaiting() {
                Some(awaiting) if awaiting.id == id => {
                    self.approve(&connection.name, id, by.clone()).await?;
                    approved = true;
                }
                Some(awaiting) => {
                    others.insert(connection.name.clone(), awaiting.id);
                }
                None => {}
            }
        }
        let others = others.iter().map(|(name, id)| format!("{name}: {id}")).collect::<Vec<_>>().join(", ");
        let problem = match others.as_str() {
            _ if approved => return Ok(()),
            "" => "nothing awaits approval".to_owned(),
            others => format!("no connection awaits approval of {id}; what awaits it is {others}"),
        };
        Err(HostError::NotRevised { connector: connector.clone(), problem })
    }
}

pub(super) fn texts(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const APPROVE: &str = "connections approve";
