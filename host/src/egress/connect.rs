//! Opens TCP connections for requests: resolves, vets every address, connects to a vetted one. The only place in the host that
//! connects anywhere on behalf of a connector, but for sockets of its own, which `tcp` decides about.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tidewaiter_core::grant::destination::{Destination, Host};
use tidewaiter_core::grant::policy::{EgressPolicy, Place};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower_service::Service;

use super::error::EgressError;
use super::resolve::Lookups;
use super::{BoxError, Outside};

/// How long one address may take while there are others to try.
const ONE_ADDRESS: Duration = Duration::from_secs(3);

/// How long what is sent may stay untaken, in milliseconds.
pub(super) const UNTAKEN_MS_MAX: u32 = 60_000;

/// Connections that may be open, of all connectors or of one.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    max: usize,
    what: &'static str,
}

impl Room {
    pub(super) fn new(what: &'static str, max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), max, what }
    }

    /// Waits that long for a place.
    pub(super) async fn enter(&self, wait: Duration) -> Result<OwnedSemaphorePermit, EgressError> {
        let busy = || EgressError::Busy { what: self.what, max: self.max };
        let entered = timeout(wait, Arc::clone(&self.places).acquire_owned()).await;
        entered.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// How many are inside.
    pub(super) fn taken(&self) -> usize {
        self.max.saturating_sub(self.places.available_permits())
    }
}

/// Where connections may lead.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// Where these entries of the policy let it.
    Granted(Arc<EgressPolicy>, Place),
    /// To what the operator wrote down, wherever that is: a proxy, a token endpoint.
    Operator,
}

impl Rule {
    fn vet(&self, host: &Host, address: IpAddr) -> Result<(), EgressError> {
        match self {
            Self::Operator => Ok(()),
            Self::Granted(policy, place) => policy.at(*place).vet(address).map_err(|kind| EgressError::Address {
                host: host.to_string(),
                address,
                kind,
            }),
        }
    }
}

/// Connects for one grant of one connection.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) outside: Outside,
    pub(super) lookups: Lookups,
    pub(super) rule: Rule,
    pub(super) time_max: Duration,
    pub(super) of_connection: Room,
}

impl Connector {
    pub(super) async fn connect(self, to: Uri) -> Result<Stream, EgressError> {
        let scheme = to.scheme_str().unwrap_or_default();
        let authority = to.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let to = Destination::parse(scheme, authority)?;
        let wait = self.time_max;
        let permits = [self.of_connection.enter(wait).await?, self.outside.sockets.enter(wait).await?];
        let connected = timeout(wait, self.first_that_answers(&to)).await;
        let stream = connected.map_err(|_| EgressError::TimedOut { what: "connecting", max: wait })??;
        let _ = stream.set_nodelay(true);
        // Whoever doesn't take what is sent doesn't hold a place for ever.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN_MS_MAX);
        Ok(Stream { io: TokioIo::new(stream), _permits: permits })
    }

    async fn first_that_answers(&self, to: &Destination) -> Result<TcpStream, EgressError> {
        let addresses = vetted(&self.rule, &to.host, &self.lookups.addresses(&to.host).await?)?;
        let mut problem = String::new();
        for (place, address) in addresses.iter().enumerate() {
            let wait = if place + 1 == addresses.len() { self.time_max } else { ONE_ADDRESS };
            match timeout(wait, TcpStream::connect(SocketAddr::new(*address, to.port))).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => problem = error.to_string(),
                Err(_) => problem = format!("{address} doesn't answer"),
            }
        }
        Err(EgressError::Connect { to: to.to_string(), problem })
    }
}

/// The addresses that may be connected to, of those that a host has; at least one.
pub(super) fn vetted(rule: &Rule, host: &Host, found: &[IpAddr]) -> Result<Vec<IpAddr>, EgressError> {
    let mut refused = None;
    let vetted = |address: &IpAddr| match rule.vet(host, *address) {
        Ok(()) => true,
        Err(error) => {
            refused.get_or_insert(error);
            false
        }
    };
    let vetted: Vec<IpAddr> = found.iter().copied().filter(vetted).collect();
    match (vetted.is_empty(), refused) {
        (false, _) => Ok(vetted),
        (true, Some(refused)) => Err(refused),
        (true, None) => Err(EgressError::Resolve { name: host.to_string(), problem: "it has no address".into() }),
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, EgressError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// An open connection, which takes its places as long as it lives.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) io: TokioIo<TcpStream>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Another connector, with an end: TLS and tunnels wait for whoever answers, or doesn't.
#[derive(Clone, Debug)]
pub(super) struct Bounded<C> {
    pub(super) inner: C,
    pub(super) time_max: Duration,
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri> + Send,
    C::Response: Send,
    C::Error: Into<BoxError> + Send,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, max) = (self.inner.call(to), self.time_max);
        Box::pin(async move {
            let connected = timeout(max, connecting).await;
            connected.map_err(|_| EgressError::TimedOut { what: "connecting", max })?.map_err(Into::into)
        })
    }
}
