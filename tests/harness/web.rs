//! A web server for connectors to talk to, in clear or over TLS, and a proxy. Each says what it was asked. On a free port of this
//! machine, in a thread of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use futures_util::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub from: SocketAddr,
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// The same, as it came.
    pub bytes: Bytes,
}

impl Seen {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Running as long as it lives.
#[derive(Debug)]
pub struct Web {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: oneshot::Sender<()>,
}

/// What a path answers, instead of what all do.
pub type Answers = Arc<dyn Fn(&Seen) -> Option<Response> + Send + Sync>;

impl Web {
    /// In clear, on the loopback.
    pub fn new() -> Self {
        Self::answering(|_| None)
    }

    /// In clear, on the loopback; `answers` has the first word.
    pub fn answering(answers: impl Fn(&Seen) -> Option<Response> + Send + Sync + 'static) -> Self {
        Self::at(IpAddr::V4(Ipv4Addr::LOCALHOST), None, Arc::new(answers))
    }

    /// In clear or over TLS; `answers` has the first word.
    pub fn at(ip: IpAddr, tls: Option<ServerConfig>, answers: Answers) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let log = Arc::clone(&seen);
        let serve = move |listener: TcpListener| async move {
            let routes = Router::new().fallback(move |from, request| answer(from, request, log, answers));
            match tls {
                None => {
                    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
                    drop(axum::serve(listener, service).await);
                }
                Some(config) => {
                    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
                    let service = routes.into_make_service_with_connect_info::<From>();
                    drop(axum::serve(listener, service).await);
                }
            }
        };
        let address = spawn(ip, serve, stopped);
        Self { address, seen, _stop: stop }
    }

    /// `http://ADDRESS` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}

fn spawn<F: Future<Output = ()>>(
    ip: IpAddr,
    serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    stopped: oneshot::Receiver<()>,
) -> SocketAddr {
    let (told, address) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind((ip, 0)).await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            tokio::select! {
                () = serve(listener) => {}
                _ = stopped => {}
            }
        });
    });
    address.recv().unwrap()
}

/// Whoever asks: a peer of either kind of listener.
#[derive(Clone, Copy, Debug)]
struct From(SocketAddr);

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Tls>> for From {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Tls>) -> Self {
        Self(*stream.remote_addr())
    }
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn answer(
    from: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    request: Request,
    log: Arc<Mutex<Vec<Seen>>>,
    answers: Answers,
) -> Response {
    let over_tls = request.extensions().get::<ConnectInfo<From>>().map(|ConnectInfo(From(from))| *from);
    let from = from.map(|axum::Extension(ConnectInfo(from))| from).or(over_tls).unwrap();
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    let (method, uri) = (parts.method.to_string(), parts.uri.to_string());
    let seen = Seen { from, method, uri, headers, body: text(&body), bytes: body };
    log.lock().unwrap().push(seen.clone());
    if let Some(answer) = answers(&seen) {
        return answer;
    }
    let (path, query) = seen.uri.split_once('?').unwrap_or((&seen.uri, ""));
    match path {
        "/redirect" => (StatusCode::FOUND, [(header::LOCATION, query.to_owned())], "").into_response(),
        "/big" => vec![b'x'; query.parse().unwrap()].into_response(),
        "/headers" => {
            let many = (0..query.parse::<usize>().unwrap()).map(|n| (format!("x-{n}"), "y".repeat(1000)));
            let mut response = Response::new(Body::empty());
            for (name, value) in many {
                response.headers_mut().insert(header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            response
        }
        "/never" => std::future::pending().await,
        "/stalls" => {
            let begun = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"begun"))]);
            Body::from_stream(begun.chain(futures_util::stream::pending())).into_response()
        }
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow".into_response()
        }
        "/switch" => StatusCode::SWITCHING_PROTOCOLS.into_response(),
        "/refuse" => StatusCode::UNAUTHORIZED.into_response(),
        "/close" => ([(header::CONNECTION, "close")], "closed").into_response(),
        _ => "hello".into_response(),
    }
}

/// An authority that only tests trust, and what it signs.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Its own certificate, as a file.
    pub fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.issuer.pem()).unwrap();
        path.to_owned()
    }

    /// Certificate and key for these names or addresses, in PEM form.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_until(names, 4096)
    }

    /// The same, until that year begins.
    pub fn sign_until(&self, names: &[&str], year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Asks a server of this machine over TLS that is to have a name; answers the status.
    ///
    /// # Errors
    /// It can't be reached, or shows no certificate of ours for that name.
    pub fn ask(&self, port: u16, name: &str, head: &str) -> std::io::Result<u16> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let session = rustls::ClientConnection::new(config, name.to_owned().try_into().unwrap());
        let session = session.map_err(std::io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, std::net::TcpStream::connect(("127.0.0.1", port))?);
        std::io::Write::write_all(&mut stream, format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| std::io::Error::other(format!("no answer: {line:?}")))
    }

    /// A server with these names; with `clients` it wants a certificate of ours from whoever comes.
    pub fn server(&self, names: &[&str], clients: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = self.sign(names);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        builder.with_single_cert(chain, key).unwrap()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A server of lines: it answers `you said LINE`, and has a look at who comes.
#[derive(Debug)]
pub struct Echo {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

impl Echo {
    pub fn new(tls: Option<ServerConfig>) -> Self {
        Self::at(IpAddr::V4(Ipv4Addr::LOCALHOST), tls)
    }

    pub fn at(ip: IpAddr, tls: Option<ServerConfig>) -> Self {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&heard);
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (stop, stopped) = oneshot::channel();
        let serve = move |listener: TcpListener| async move {
            let mut clients = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (log, tls) = (Arc::clone(&log), tls.clone());
                clients.spawn(async move {
                    match tls {
                        None => drop(echo(stream, &log).await),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => drop(echo(stream, &log).await),
                            Err(error) => log.lock().unwrap().push(format!("no TLS: {error}")),
                        },
                    }
                });
            }
        };
        Self { address: spawn(ip, serve, stopped), heard, _stop: stop }
    }

    /// Every line that came.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// As a connector asks for it.
    pub fn to(&self) -> String {
        self.address.to_string()
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S, heard: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        heard.lock().unwrap().push(line.trim_end().to_owned());
        lines.write_all(format!("you said {line}").as_bytes()).await?;
        lines.flush().await?;
        line.clear();
    }
    Ok(())
}

/// A proxy that leads names to servers of this machine.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// By `HOST:PORT`.
    pub fn new(leads: HashMap<String, SocketAddr>) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let (stop, stopped) = oneshot::channel();
        let leads = Arc::new(leads);
        let serve = move |listener: TcpListener| async move {
            let mut tunnels = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (leads, log) = (Arc::clone(&leads), Arc::clone(&log));
                tunnels.spawn(async move { drop(tunnel(stream, &leads, &log).await) });
            }
        };
        let address = spawn(IpAddr::V4(Ipv4Addr::LOCALHOST), serve, stopped);
        Self { address, asked, _stop: stop }
    }

    /// The first line of each request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn tunnel(
    mut stream: TcpStream,
    leads: &HashMap<String, SocketAddr>,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    log.lock().unwrap().push(line.clone());
    let to = line.split(' ').nth(1).and_then(|to| leads.get(to));
    let Some(to) = to else { return stream.write_all(b"HTTP/1.1 403 no\r\n\r\n").await };
    let mut server = TcpStream::connect(to).await?;
    stream.write_all(b"HTTP/1.1 200 ok\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// A way to a server that can be slowed, and cut.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    bytes_max: Arc<AtomicU64>,
    pause_ms: Arc<AtomicU64>,
    _stop: oneshot::Sender<()>,
}

impl Relay {
    /// Neither, until told.
    pub fn new(to: SocketAddr) -> Self {
        let (bytes_max, pause_ms) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
        let (max, pause) = (Arc::clone(&bytes_max), Arc::clone(&pause_ms));
        let (stop, stopped) = oneshot::channel();
        let serve = move |listener: TcpListener| async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (max, pause) = (Arc::clone(&max), Arc::clone(&pause));
                ways.spawn(async move { drop(relay(client, to, &max, &pause).await) });
            }
        };
        Self { address: spawn(IpAddr::V4(Ipv4Addr::LOCALHOST), serve, stopped), bytes_max, pause_ms, _stop: stop }
    }

    /// Each connection is cut once the server has sent so much over it.
    pub fn cuts_after(&self, bytes: u64) {
        self.bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Waits before each piece of what the server sends.
    pub fn pauses(&self, ms: u64) {
        self.pause_ms.store(ms, Ordering::Relaxed);
    }
}

async fn relay(client: TcpStream, to: SocketAddr, bytes_max: &AtomicU64, pause_ms: &AtomicU64) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(to).await?.into_split();
    let there = tokio::io::copy(&mut from_client, &mut to_server);
    let back = async {
        let (mut piece, mut sent) = ([0; 4096], 0);
        loop {
            let count = from_server.read(&mut piece).await?;
            sent += count as u64;
            if count == 0 || sent > bytes_max.load(Ordering::Relaxed) {
                return Ok::<(), io::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(pause_ms.load(Ordering::Relaxed))).await;
            to_client.write_all(&piece[..count]).await?;
        }
    };
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
    Ok(())
}

/// An address of this machine that is not its loopback, if it has one that a grant's range can open.
pub fn local_address() -> Option<IpAddr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let v6 = table.lines().filter_map(|line| {
        let hex = line.split_whitespace().next()?;
        u128::from_str_radix(hex, 16).ok().map(|bits| IpAddr::V6(bits.into()))
    });
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v4: Vec<IpAddr> = table
        .lines()
        .zip(table.lines().skip(1))
        .filter(|(_, next)| next.contains("/32 host LOCAL"))
        .filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .collect();
    let range = |address: &IpAddr| address.to_string().parse::<tidewaiter_core::grant::address::Range>().is_ok();
    v4.into_iter().chain(v6).find(|address| range(address) && std::net::TcpListener::bind((*address, 0)).is_ok())
}
