//! The HTTP API: who may ask, how errors look, and the server's life. On loopback only, for whoever has the token of the token
//! file. Knows the service functions of the host, and nothing below them.

mod error;
mod openidm;
mod secret;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use self::error::ApiError;
use self::secret::Secret;
use crate::clients::Clients;
use crate::host::Host;

/// The largest body of a request, in bytes: a token of 64 KiB in base64 and its document.
const BODY_BYTES_MAX: usize = 128 * 1024;
/// How long a client may take with the head of a request, from the end of the one before, and with its body.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A server that is about to listen.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    secret: Arc<Secret>,
    address: SocketAddr,
}

impl Server {
    /// Takes the address, and makes the token file `http-token` in the data directory unless it is there.
    ///
    /// # Errors
    /// The address is taken, or the token file can't be made, or others may read it.
    pub async fn bind(listen: SocketAddr, data: &Path) -> io::Result<Self> {
        let secret = Arc::new(Secret::open(data)?);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("http.listen {listen}: {error}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        Ok(Self { listener, secret, address })
    }

    /// Where it listens: with port 0 configured, the one that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the host closes; answers that are under way then are still given, to whoever fetches them.
    pub async fn serve(self, host: Arc<Host>) {
        let closing = host.closing().clone();
        let routes = Router::new().nest("/openidm", openidm::routes());
        let routes = routes.fallback(nowhere).method_not_allowed_fallback(no_method);
        let routes = routes.layer(from_fn_with_state(self.secret, admit));
        let routes = routes.with_state(Arc::clone(&host));
        let accept = async || Ok(self.listener.accept().await?.0);
        let clients = Clients::serve(&host, accept, |stream| client(stream, routes.clone(), closing.clone())).await;
        drop(self.listener);
        clients.last_answers(&host).await;
    }
}

/// One client, until it has nothing more to ask, or says nothing for too long.
async fn client(stream: TcpStream, routes: Router, closing: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENCE_MAX);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    tokio::select! {
        _ = served.as_mut() => return,
        () = closing.cancelled() => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

/// Lets a request in that has the token, and that a page in a browser can't have made by another name for loopback.
async fn admit(State(secret): State<Arc<Secret>>, request: Request, next: Next) -> Result<Response, ApiError> {
    if !request.headers().get(header::HOST).is_none_or(|host| host.to_str().is_ok_and(is_loopback)) {
        return Err(ApiError::bad_request("the Host header names another machine"));
    }
    if !bearer(request.headers()).is_some_and(|token| secret.is(token)) {
        return Err(ApiError::unauthorized());
    }
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(SILENCE_MAX, to_bytes(body, BODY_BYTES_MAX)).await;
    let read = read.map_err(|_| ApiError::of(StatusCode::REQUEST_TIMEOUT, "the body doesn't come"))?;
    let too_large = |_| {
        ApiError::of(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body of more than the {BODY_BYTES_MAX} bytes that are taken"),
        )
    };
    let body = read.map_err(too_large)?;
    Ok(next.run(Request::from_parts(head, body.into())).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name),
    };
    let plain = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn nowhere(request: Request) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", request.uri().path()))
}

async fn no_method(request: Request) -> ApiError {
    ApiError::method(format!("{} does nothing at {}", request.method(), request.uri().path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_this_machine() {
        for ours in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(ours), "{ours}");
        }
        for other in ["", "example.org", "localhost.example.org:80", "192.168.0.1:80", "127.0.0.1.nip.io", "[::2]:1"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
