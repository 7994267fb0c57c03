//! Requests to what the operator wrote down: token endpoints, and the servers of sinks. No grant bounds where they go, and no connector
//! says anything in them about how they go; they are checked, sent and answered like all others.

use std::fmt;

use http::{Request, Response};
use http_body_util::BodyExt;

use super::connect::{Room, Rule};
use super::error::EgressError;
use super::resolve::Lookups;
use super::{Answering, Body, Outside, Pool, Tasks, Times, meaning, new_pool, no_tls, request};

/// Connections to token endpoints, of one connection: they are asked one at a time, but for what guests gave up waiting for.
const TOKEN_SOCKETS_MAX: usize = 4;
/// Connections of one endpoint: it is sent one request at a time, and one that was given up may not have ended yet.
const SOCKETS_MAX: usize = 4;

/// Asks token endpoints.
pub(super) struct EndpointClient {
    outside: Outside,
    sockets: Room,
    lookups: Lookups,
    tasks: Tasks,
}

impl EndpointClient {
    pub(super) fn new(outside: Outside, lookups: Lookups, tasks: Tasks) -> Self {
        let sockets = Room::new("connections to token endpoints", TOKEN_SOCKETS_MAX);
        Self { outside, sockets, lookups, tasks }
    }

    pub(super) fn send(&self, request: Request<Body>) -> Answering {
        let (outside, tasks) = (self.outside.clone(), self.tasks.clone());
        let (sockets, lookups) = (self.sockets.clone(), self.lookups.clone());
        Box::pin(async move {
            let pool = pool(&outside, sockets, lookups, tasks)?;
            let max = Times::USUAL.connect + Times::USUAL.first_byte;
            let sent = tokio::time::timeout(max, exchange(pool, request)).await;
            sent.map_err(|_| EgressError::TimedOut { what: "the token endpoint", max })?
        })
    }
}

/// One server, with sockets of its own. How long it may take is up to whoever asks.
pub(crate) struct Endpoint {
    pool: Pool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

impl Endpoint {
    /// # Errors
    /// TLS can't be set up.
    pub(crate) fn new(outside: &Outside) -> Result<Self, EgressError> {
        let tasks = Tasks::default();
        let sockets = Room::new("connections to a sink", SOCKETS_MAX);
        let lookups = outside.lookups(&tasks);
        Ok(Self { pool: pool(outside, sockets, lookups, tasks)? })
    }

    /// Sends a request. Follows no redirect.
    pub(crate) fn send(&self, request: Request<Body>) -> Answering {
        Box::pin(exchange(Pool::clone(&self.pool), request))
    }
}

fn pool(outside: &Outside, sockets: Room, lookups: Lookups, tasks: Tasks) -> Result<Pool, EgressError> {
    let config = outside.trust.client(None).map_err(|error| no_tls(&error))?;
    new_pool(outside.connector(Rule::Operator, sockets, lookups), None, config, tasks)
}

async fn exchange(pool: Pool, request: Request<Body>) -> Result<Response<Body>, EgressError> {
    let (to, request) = request::checked(request)?;
    let response = pool(request).await.map_err(|error| meaning(&error, &to))?;
    Ok(request::answered(response, &to)?.map(|body| body.map_err(Into::into).boxed_unsync()))
}
