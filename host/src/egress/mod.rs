//! This is the security boundary for everything that leaves: whatever a connector sends outside goes through here and nowhere else.
//! A request leaves if the policy of its connection lets it, to an address that was looked at, with a URL, a Host header and a server
//! name that were made here from what was checked. Redirects are not followed, no proxy is taken from the environment, and no other
//! protocol is spoken than HTTP/1.1; where TCP is granted, the connector speaks its own. Knows nothing of wasmtime, the db, or runs.

mod body;
mod connect;
mod endpoint;
mod error;
mod login;
mod meter;
mod oauth;
mod request;
mod resolve;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Builder, Client, Error as ClientError};
use rustls::ClientConfig;
use tidewaiter_core::grant::destination::{Destination, Pattern};
use tidewaiter_core::grant::policy::{EgressPolicy, Place};
use tokio::task::JoinSet;

use self::body::Received;
use self::connect::{Bounded, Connector, Room, Rule};
pub(crate) use self::endpoint::Endpoint;
use self::endpoint::EndpointClient;
pub use self::error::EgressError;
pub use self::login::{Credential, Kind, Logins, RunLogins};
use self::login::{Fingerprint, Identified};
pub use self::meter::{Meter, Traffic, Witness};
pub use self::oauth::{NoVault, OAuth, Storing, TokenClient, Vault};
use self::resolve::{LOOKUPS_MAX, Lookups};
pub use self::resolve::{Resolve, Resolving, SystemResolver};
use self::tcp::Tcp;
pub(crate) use self::tcp::sandbox;
pub(crate) use self::tls::certificates;
pub use self::tls::{TlsError, Trust};
use crate::clock::Clock;
use crate::meters::{ConnectionMeters, Meters, Passage};

/// Connections to the outside, of all connectors together. Half of the usual limit of open files.
const SOCKETS_MAX: usize = 512;
/// Connections to the outside, of one connection: those in use and those kept for the next request.
const SOCKETS_OF_CONNECTION_MAX: usize = 32;
/// Connections to one server that are kept for the next request.
const IDLE_SOCKETS_MAX: usize = 4;
/// How long they are kept: shorter than a request waits for a place, so that idle ones make room.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// The most header fields of a response.
const HEADERS_MAX: usize = 128;

/// What every body is here.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// What goes wrong with a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An answer, on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, EgressError>> + Send>>;

/// How long the parts of a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until there is a connection.
    pub connect: Duration,
    /// From then on until the answer begins, TLS included.
    pub first_byte: Duration,
    /// From one part of the answer to the next.
    pub between_bytes: Duration,
}

impl Times {
    /// Where the guest says nothing.
    pub const USUAL: Self = Self {
        connect: Duration::from_secs(10),
        first_byte: Duration::from_secs(60),
        between_bytes: Duration::from_secs(60),
    };
    const MIN: Duration = Duration::from_millis(1);
    const MAX: Duration = Duration::from_secs(600);

    /// What a guest asked for, or the usual; never nothing, and never for ever.
    pub fn clamped(connect: Option<Duration>, first_byte: Option<Duration>, between_bytes: Option<Duration>) -> Self {
        let clamp = |asked: Option<Duration>, usual: Duration| asked.unwrap_or(usual).clamp(Self::MIN, Self::MAX);
        Self {
            connect: clamp(connect, Self::USUAL.connect),
            first_byte: clamp(first_byte, Self::USUAL.first_byte),
            between_bytes: clamp(between_bytes, Self::USUAL.between_bytes),
        }
    }
}

/// What all connections of a host share: names, trust, how many sockets there may be, and where tokens are kept.
#[derive(Clone, Debug)]
pub struct Outside {
    resolver: Arc<dyn Resolve>,
    trust: Trust,
    sockets: Room,
    lookups: Room,
    vault: Arc<dyn Vault>,
    clock: Clock,
    meters: Meters,
}

impl Default for Outside {
    /// The system's names, nobody who is trusted, and no place for tokens.
    fn default() -> Self {
        Self::new(Arc::new(SystemResolver), Trust::nobody(), Arc::new(NoVault), Clock::start())
    }
}

impl Outside {
    fn lookups(&self, tasks: &Tasks) -> Lookups {
        Lookups::new(Arc::clone(&self.resolver), self.lookups.clone(), tasks.clone())
    }

    fn connector(&self, rule: Rule, of_connection: Room, lookups: Lookups) -> Connector {
        Connector { outside: self.clone(), lookups, rule, time_max: Times::USUAL.connect, of_connection }
    }

    /// With these names, roots, and place for tokens.
    pub fn new(resolver: Arc<dyn Resolve>, trust: Trust, vault: Arc<dyn Vault>, clock: Clock) -> Self {
        let (sockets, lookups) =
            (Room::new("connections of this host", SOCKETS_MAX), Room::new("lookups", LOOKUPS_MAX));
        Self { resolver, trust, sockets, lookups, vault, clock, meters: Meters::new(clock) }
    }

    /// What leaves is counted there.
    #[must_use]
    pub fn counted(self, meters: Meters) -> Self {
        Self { meters, ..self }
    }
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, ClientError>> + Send>>;
type Pool = Arc<dyn Fn(Request<Body>) -> Sending + Send + Sync>;
/// By which entries its sockets were vetted, and which client certificate they show: the place of its credential, and what it is now.
type PoolKey = (Place, Option<(usize, Fingerprint)>);

/// A connection's way out. Its pools are its own: no other connection ever uses a socket of it.
pub struct Egress {
    outside: Outside,
    policy: Mutex<Arc<EgressPolicy>>,
    logins: Arc<Logins>,
    sockets: Room,
    lookups: Lookups,
    pools: Mutex<HashMap<PoolKey, Pool>>,
    tasks: Tasks,
    meters: Arc<ConnectionMeters>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).field("logins", &self.logins).finish_non_exhaustive()
    }
}

impl Egress {
    /// For the connection of this name, with its logins; at most `logins_per_hour_max` of them.
    pub fn new(
        connection: &str,
        outside: Outside,
        policy: EgressPolicy,
        credentials: Vec<Credential>,
        logins_per_hour_max: u32,
    ) -> Self {
        let tasks = Tasks::default();
        let lookups = outside.lookups(&tasks);
        let endpoint = EndpointClient::new(outside.clone(), lookups.clone(), tasks.clone());
        let (vault, clock) = (Arc::clone(&outside.vault), outside.clock);
        let tokens =
            TokenClient::new(connection, tasks.clone(), Arc::new(move |request| endpoint.send(request)), vault, clock);
        let meters = outside.meters.connection(connection);
        let logins = Arc::new(Logins::new(credentials, tokens, clock, logins_per_hour_max, Arc::clone(&meters)));
        let sockets = Room::new("connections to the outside", SOCKETS_OF_CONNECTION_MAX);
        let (policy, pools) = (Mutex::new(Arc::new(policy)), Mutex::default());
        Self { outside, policy, logins, sockets, lookups, pools, tasks, meters }
    }

    /// What it may ask for from the next run on, and what awaits approval.
    pub fn ask(&self, asked: Vec<Pattern>, awaiting: Vec<Pattern>) {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        *policy = Arc::new(EgressPolicy { asked, awaiting, ..EgressPolicy::clone(&policy) });
    }

    /// Its logins.
    pub fn logins(&self) -> &Arc<Logins> {
        &self.logins
    }

    /// The way out of one run.
    pub fn of_run(self: &Arc<Self>, meter: Arc<Meter>) -> Outgoing {
        let policy = Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner));
        Outgoing {
            egress: Arc::clone(self),
            policy,
            logins: Arc::new(self.logins.of_run()),
            meter,
            tcp: Tcp::default(),
        }
    }

    /// Places are entries of grants and ceiling, which stay: whatever is asked for, a pool's rule is the same.
    fn pool(
        &self,
        policy: &Arc<EgressPolicy>,
        place: Place,
        identity: Option<&Identified>,
    ) -> Result<Pool, EgressError> {
        let key = (place, identity.map(|identified| (identified.place, identified.fingerprint)));
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Ok(Arc::clone(pool));
        }
        // A key that was replaced is shown to nobody any more.
        let is_replaced = |shown: &PoolKey| match (shown, key) {
            ((other, Some((before, _))), (place, Some((now, _)))) => (*other, *before) == (place, now),
            _ => false,
        };
        pools.retain(|shown, _| !is_replaced(shown));
        let proxy = policy.at(place).grant.proxy.clone();
        let rule = match proxy {
            Some(_) => Rule::Operator,
            None => Rule::Granted(Arc::clone(policy), place),
        };
        let connector = self.outside.connector(rule, self.sockets.clone(), self.lookups.clone());
        let config = match identity {
            Some(identified) => identified.config.clone(),
            None => self.outside.trust.client(None).map_err(|error| no_tls(&error))?,
        };
        let pool = new_pool(connector, proxy, config, self.tasks.clone())?;
        pools.insert(key, Arc::clone(&pool));
        Ok(pool)
    }
}

/// The way out of one run: with logins as they are now, and its traffic counted.
#[derive(Debug)]
pub struct Outgoing {
    egress: Arc<Egress>,
    policy: Arc<EgressPolicy>,
    logins: Arc<RunLogins>,
    meter: Arc<Meter>,
    tcp: Tcp,
}

impl Outgoing {
    /// Sends a request, if it may leave.
    pub fn send(self: &Arc<Self>, request: Request<Body>, times: Times) -> Answering {
        let this = Arc::clone(self);
        Box::pin(async move {
            let answered = this.exchange(request, times).await;
            this.meter.answered(answered.as_ref().err());
            this.count(answered.as_ref().err());
            answered
        })
    }

    /// Counts what became of something that was to leave.
    fn count(&self, error: Option<&EgressError>) {
        let (passage, code) = match error {
            None => (Passage::Allowed, "ok"),
            Some(error) if error.is_denial() => (Passage::Denied, error.code()),
            Some(error) => (Passage::Failed, error.code()),
        };
        self.egress.meters.passage(passage, code);
    }

    /// What it sent and got so far.
    pub fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    async fn exchange(&self, request: Request<Body>, times: Times) -> Result<Response<Body>, EgressError> {
        let (to, mut request) = request::checked(request)?;
        let place = self.policy.decide(request.method().as_str(), &to)?.place;
        let turn = self.meter.begin(times.connect).await?;
        let identity = self.logins.identity(&to, &self.egress.outside.trust).await?;
        for name in self.logins.put_into(request.headers_mut(), &to).await? {
            self.meter.replaced(&name);
        }
        let pool = self.egress.pool(&self.policy, place, identity.as_deref())?;
        let max = times.connect + times.first_byte;
        let leaving = self.logins.leaves(&mut request, &to);
        let sent = tokio::time::timeout(max, pool(request)).await;
        self.meter.sockets(self.egress.sockets.taken());
        // A guest may wait for one answer while others lie unread: those don't keep it from coming.
        drop(turn);
        let sent = sent.map_err(|_| EgressError::TimedOut { what: "the answer", max })?;
        let response = sent.map_err(|error| meaning(&error, &to))?;
        let refused = response.status() == StatusCode::UNAUTHORIZED;
        leaving.answered(refused);
        if refused {
            self.logins.refused(&to).await;
        }
        let received = |body| Received::new(body, times.between_bytes, Arc::clone(&self.meter)).boxed_unsync();
        Ok(request::answered(response, &to)?.map(received))
    }
}

fn no_tls(error: &TlsError) -> EgressError {
    EgressError::Tls { to: "anybody".into(), untrusted: false, problem: error.to_string() }
}

fn new_pool(
    connector: Connector,
    proxy: Option<Destination>,
    config: ClientConfig,
    tasks: Tasks,
) -> Result<Pool, EgressError> {
    let tls = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
    let mut builder = Client::builder(tasks);
    limit(&mut builder);
    // All of it: addresses that are tried, a tunnel, TLS.
    let time_max = Times::USUAL.connect.saturating_mul(3);
    Ok(match proxy {
        None => {
            let client: Client<_, Body> = builder.build(Bounded { inner: tls.wrap_connector(connector), time_max });
            Arc::new(move |request| Box::pin(client.request(request)))
        }
        Some(proxy) => {
            let at = Uri::try_from(proxy.to_string());
            let at = at.map_err(|error| EgressError::Connect { to: proxy.to_string(), problem: error.to_string() })?;
            let tunnel = tls.wrap_connector(Tunnel::new(at, connector));
            let client: Client<_, Body> = builder.build(Bounded { inner: tunnel, time_max });
            Arc::new(move |request| Box::pin(client.request(request)))
        }
    })
}

fn limit(builder: &mut Builder) {
    builder.pool_timer(hyper_util::rt::TokioTimer::new());
    builder.pool_idle_timeout(IDLE_TIME).pool_max_idle_per_host(IDLE_SOCKETS_MAX);
    builder.http1_max_buf_size(request::HEAD_BYTES_MAX).http1_max_headers(HEADERS_MAX);
    // The one that was checked is set already.
    builder.set_host(false);
}

/// What a failure is, in our words: the client wraps ours in its own.
fn meaning(error: &ClientError, to: &Destination) -> EgressError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut words = Vec::new();
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<EgressError>() {
            return ours.clone();
        }
        if let Some(tls) = tls_error(error) {
            return EgressError::of_tls(&to.to_string(), tls);
        }
        words.push(error.to_string());
        cause = error.source();
    }
    EgressError::Protocol { to: to.to_string(), problem: words.join(": ") }
}

/// The error of TLS inside one of IO, however deep.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|inner| tls_error(inner)))
}

/// Where sockets are driven. They end with the connection that they belong to.
#[derive(Clone, Debug, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
