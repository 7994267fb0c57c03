//! The HTTP API: who may ask, how errors look, and the server's life. Knows the service functions of the host, and nothing below them.

mod admit;
mod error;
mod extract;
mod feed;
mod idempotency;
mod openidm;
mod operation;
mod page;
mod tls;
mod v1;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_http::add_extension::AddExtension;
use tower_http::catch_panic::{CatchPanic, ResponseForPanic};
use utoipa_axum::router::OpenApiRouter;

use self::admit::{From, Limits, Roles, SILENCE_MAX};
use self::error::ApiError;
use self::feed::{Feed, Places};
use self::idempotency::Remembered;
use self::operation::Operations;
use self::page::Sessions;
use self::tls::Acceptor;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::Http;
use crate::host::Host;

/// The largest head of a request, in bytes: one of more than twice that is refused whatever way it comes in.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A server that is about to listen.
pub struct Server {
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    http: Http,
    address: SocketAddr,
}

/// All routes; a bug of ours ends one request, and no other.
type Routes = CatchPanic<Router, ByABug>;

/// What handlers share.
struct App {
    host: Arc<Host>,
    clock: Clock,
    /// Names under which it may be asked.
    names: Vec<String>,
    roles: Roles,
    limits: Limits,
    remembered: Remembered,
    operations: Operations,
    feed: Feed,
    places: Places,
    sessions: Sessions,
    /// Nobody listens on the way.
    secure: bool,
    /// What the API is, in JSON.
    document: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address, and makes the first access token of a host that has none.
    ///
    /// # Errors
    /// The address is taken; the certificate can't be used; or the first access token can't be made, or others may read it.
    pub async fn bind(http: Http, host: &Host) -> io::Result<Self> {
        host.access().first().map_err(io::Error::other)?;
        let tls = http.tls.clone().map(|tls| Acceptor::open(tls, Clock::start()).map(Arc::new)).transpose()?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("http.listen {}: {error}", http.listen));
        let listener = TcpListener::bind(http.listen).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        Ok(Self { listener, tls, http, address })
    }

    /// Where it listens: with port 0 configured, the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for people.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until the host closes; answers that are under way then are still given, to whoever fetches them.
    pub async fn serve(self, host: Arc<Host>) {
        let closing = host.closing().clone();
        let (routes, app) = routes(&host, &self.http);
        let accept = async || self.listener.accept().await;
        let serve = |(stream, from): (TcpStream, SocketAddr)| {
            let routes = AddExtension::new(routes.clone(), From(from.ip()));
            client(stream, self.tls.clone(), routes, closing.clone())
        };
        let served = Clients::serve(&host, self.http.clients, accept, serve);
        let (clients, ()) = tokio::join!(served, app.feed.work(&host));
        drop(self.listener);
        clients.last_answers(&host).await;
    }
}

/// All routes, and what they share.
fn routes(host: &Arc<Host>, http: &Http) -> (Routes, Arc<App>) {
    let (api, mut document) = v1::routes().split_for_parts();
    let (openidm, theirs) = OpenApiRouter::new().nest("/openidm", openidm::routes()).split_for_parts();
    document.merge(theirs);
    let (page, theirs) = page::routes().split_for_parts();
    document.merge(theirs);
    let clock = Clock::start();
    let app = Arc::new(App {
        host: Arc::clone(host),
        clock,
        names: http.hosts.clone(),
        roles: Roles::of(&document),
        limits: Limits::new(http.requests_per_second),
        remembered: Remembered::new(clock),
        operations: Operations::new(clock),
        feed: Feed::new(),
        places: Places::new(http.clients),
        sessions: Sessions::new(clock),
        secure: http.tls.is_some(),
        document: document.to_json().unwrap_or_default(),
    });
    // What is nowhere is refused by whoever lets in. A layer is a box for each request, so there is one, and the rest lies around the routes.
    let routes = api.merge(openidm).merge(page).fallback(nowhere).method_not_allowed_fallback(nowhere);
    let routes = routes.layer(from_fn_with_state(Arc::clone(&app), admit::admit)).with_state(Arc::clone(&app));
    (CatchPanic::custom(routes, ByABug), app)
}

/// One client, until it has nothing more to ask, or says nothing for too long.
async fn client(
    stream: TcpStream,
    tls: Option<Arc<Acceptor>>,
    routes: AddExtension<Routes, From>,
    closing: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    // Who doesn't fetch what is said to them has their place taken.
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(SILENCE_MAX));
    match tls {
        None => http(stream, routes, closing).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(SILENCE_MAX, tls.accept(stream)).await {
                http(stream, routes, closing).await;
            }
        }
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: AddExtension<Routes, From>,
    closing: CancellationToken,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENCE_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    tokio::select! {
        _ = served.as_mut() => return,
        () = closing.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

async fn nowhere() -> ApiError {
    ApiError::not_found("there is nothing here")
}

/// How it is answered.
#[derive(Clone, Copy)]
struct ByABug;

impl ResponseForPanic for ByABug {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, what: Box<dyn Any + Send>) -> Response {
        let text = what.downcast_ref::<String>().map(String::as_str).or_else(|| what.downcast_ref::<&str>().copied());
        let mut response = ApiError::bug(text.unwrap_or("no text")).into_response();
        admit::close(&mut response);
        response
    }
}
