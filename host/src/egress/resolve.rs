//! From a name to addresses. Vets nothing: whoever asks does.
//!
//! A lookup can't be called off: the system's own takes a thread until it is through with its servers. So each holds its place until it
//! has ended, whether or not somebody still waits for it, and there are only so many places.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::rt::Executor;
use tidewaiter_core::grant::destination::Host;
use tokio::sync::oneshot;

use super::connect::Room;
use super::{EgressError, Tasks, Times};

/// Addresses, on their way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names for every connection made on behalf of a connector. Embedders and tests may bring their own.
pub trait Resolve: Debug + Send + Sync + 'static {
    /// All addresses of a name. May not answer for addresses themselves: those are never asked for.
    fn resolve(&self, name: &str) -> Resolving;
}

/// Lookups under way, of all connectors together.
pub(super) const LOOKUPS_MAX: usize = 64;
/// Lookups under way, of one connection.
pub(super) const LOOKUPS_OF_CONNECTION_MAX: usize = 8;

/// Looks names up for one connection.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    resolver: Arc<dyn Resolve>,
    of_host: Room,
    of_connection: Room,
    tasks: Tasks,
}

impl Lookups {
    pub(super) fn new(resolver: Arc<dyn Resolve>, of_host: Room, tasks: Tasks) -> Self {
        let of_connection = Room::new("lookups of a connection", LOOKUPS_OF_CONNECTION_MAX);
        Self { resolver, of_host, of_connection, tasks }
    }

    /// The addresses of a host, as they are.
    pub(super) async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, EgressError> {
        let name = match host {
            Host::Ip(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let wait = Times::USUAL.connect;
        let places = [self.of_connection.enter(wait).await?, self.of_host.enter(wait).await?];
        let (answer, answered) = oneshot::channel();
        let resolving = self.resolver.resolve(name);
        self.tasks.execute(async move {
            let found = resolving.await;
            drop(places);
            drop(answer.send(found));
        });
        let failed = |error: io::Error| EgressError::Resolve { name: name.clone(), problem: error.to_string() };
        answered.await.unwrap_or_else(|_| Err(io::Error::other("the connection ended meanwhile"))).map_err(failed)
    }
}

/// What this machine's own programs would get: its files, its name servers, its search list.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> Resolving {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
