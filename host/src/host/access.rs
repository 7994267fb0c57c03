//! Access tokens, given and taken: written down who does it, and to whom.

use tidewaiter_core::access::Role;
use tidewaiter_core::name::AccessName;
use tidewaiter_core::state::Actor;
use tidewaiter_core::time::UnixMillis;

use super::{Host, HostError};
use crate::access::NewAccess;

impl Host {
    /// Makes an access token. It is shown this once.
    ///
    /// # Errors
    /// There is one of that name, it would never be one, or it can't be written.
    pub async fn access_add(
        &self,
        name: &AccessName,
        role: Role,
        expires: Option<UnixMillis>,
        by: Actor,
    ) -> Result<NewAccess, HostError> {
        let until = expires.map_or(String::new(), |at| format!(" until {at}"));
        let (audit, access, name) = (self.audit.clone(), self.access.clone(), name.clone());
        self.act(async move {
            audit.act(&by, "access add", format!("{name} as {role}{until}")).await?;
            Ok(access.add(&name, role, expires)?)
        })
        .await
    }

    /// Has an access token be none any more, at once.
    ///
    /// # Errors
    /// There is none of that name, or it can't be written.
    pub async fn access_revoke(&self, name: &AccessName, by: Actor) -> Result<(), HostError> {
        let (audit, access, name) = (self.audit.clone(), self.access.clone(), name.clone());
        self.act(async move {
            audit.act(&by, "access revoke", name.to_string()).await?;
            Ok(access.revoke(&name)?)
        })
        .await
    }
}
