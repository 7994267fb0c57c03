//! What is waited for has an end, and what is remembered too.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::{io, thread};

use http_body_util::{Empty, Full};
use tidewaiter_core::grant::policy::EgressGrant;
use tower_service::Service;

use super::connect::UNTAKEN_MS_MAX;
use super::oauth::ANSWER_BYTES_MAX;
use super::tcp::REMEMBERED_MAX;
use super::*;

/// Long enough for what takes no time, short enough to wait for.
const SOON: Duration = Duration::from_millis(200);
/// By then what ends after [`SOON`] has ended, on a busy machine too.
const LATE: Duration = Duration::from_secs(20);

/// Finds these addresses for every name; none: never finds any.
#[derive(Debug)]
struct Names(Option<Vec<IpAddr>>);

impl Resolve for Names {
    fn resolve(&self, _: &str) -> Resolving {
        let found = self.0.clone();
        Box::pin(async move {
            match found {
                Some(found) => Ok(found),
                None => pending().await,
            }
        })
    }
}

fn outside(names: Names) -> Outside {
    Outside::new(Arc::new(names), Trust::nobody(), Arc::new(NoVault), Clock::start())
}

/// The way out of a run that may reach this.
fn outgoing(names: Names, to: Pattern) -> Arc<Outgoing> {
    let policy =
        EgressPolicy { asked: vec![to.clone()], granted: vec![EgressGrant::to(to)], ..EgressPolicy::default() };
    let egress = Arc::new(Egress::new("it", outside(names), policy, Vec::new(), 1));
    Arc::new(egress.of_run(Meter::new(4, 1 << 20, Box::new(|_| ()))))
}

fn connector(names: Names, time_max: Duration) -> (Connector, Room) {
    let (outside, of_connection) = (outside(names), Room::new("connections", 1));
    let lookups = outside.lookups(&Tasks::default());
    let mut connector = outside.connector(Rule::Operator, of_connection.clone(), lookups);
    connector.time_max = time_max;
    (connector, of_connection)
}

/// A server on this machine that accepts one connection, answers this, and then nothing more.
fn server(says: &'static str) -> (SocketAddr, thread::JoinHandle<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if !says.is_empty() {
            // Before it is asked, an answer is none.
            assert_ne!(stream.read(&mut [0; 1024]).unwrap(), 0);
            stream.write_all(says.as_bytes()).unwrap();
        }
        stream
    });
    (address, served)
}

/// What fails after a while, and not only much later.
async fn ends<T>(tried: impl Future<Output = Result<T, EgressError>>) -> EgressError {
    match tokio::time::timeout(LATE, tried).await.expect("it has an end") {
        Ok(_) => panic!("it went well"),
        Err(error) => error,
    }
}

fn timed_out(error: &EgressError) -> Option<&'static str> {
    match error {
        EgressError::TimedOut { what, .. } => Some(what),
        _ => None,
    }
}

#[test]
fn a_guest_waits_neither_for_ever_nor_not_at_all() {
    let asked = Some(Duration::ZERO);
    let shortest = Times::clamped(asked, asked, asked);
    assert_eq!([shortest.connect, shortest.first_byte, shortest.between_bytes], [Times::MIN; 3]);
    let asked = Some(Duration::MAX);
    let longest = Times::clamped(asked, asked, asked);
    assert_eq!([longest.connect, longest.first_byte, longest.between_bytes], [Times::MAX; 3]);
    assert_eq!(Times::clamped(None, None, None), Times::USUAL);
}

#[tokio::test]
async fn a_name_that_is_not_found_is_not_waited_for_for_ever() {
    let outgoing = outgoing(Names(None), Pattern::tcp("db.corp:5432").unwrap());
    assert_eq!(timed_out(&ends(outgoing.found("db.corp", SOON)).await), Some("looking a name up"));
    let (connector, _) = connector(Names(None), SOON);
    let error = ends(connector.connect(Uri::from_static("http://db.corp"))).await;
    assert_eq!(timed_out(&error), Some("connecting"));
}

#[tokio::test]
async fn a_place_is_not_waited_for_for_ever_and_what_is_not_taken_has_an_end() {
    let (address, served) = server("");
    let (connector, of_connection) = connector(Names(None), SOON);
    let to = Uri::try_from(format!("http://{address}")).unwrap();
    let stream = connector.clone().connect(to.clone()).await.unwrap();
    assert_eq!(rustix::net::sockopt::tcp_user_timeout(stream.io.inner()), Ok(UNTAKEN_MS_MAX));
    assert_eq!(of_connection.taken(), 1);
    let error = ends(connector.connect(to)).await;
    assert!(matches!(error, EgressError::Busy { what: "connections", max: 1 }), "{error}");
    drop(stream);
    assert_eq!(of_connection.taken(), 0);
    served.join().unwrap();
}

/// Connects to nothing, for ever.
#[derive(Clone)]
struct Never;

impl Service<Uri> for Never {
    type Response = ();
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(pending())
    }
}

#[tokio::test]
async fn tunnels_and_handshakes_are_not_waited_for_for_ever() {
    let connecting = Bounded { inner: Never, time_max: SOON }.call(Uri::from_static("https://api.example.com"));
    let error = ends(async { connecting.await.map_err(|error| *error.downcast().unwrap()) }).await;
    assert_eq!(timed_out(&error), Some("connecting"));
    let outgoing = outgoing(Names(None), Pattern::tcp("db.corp:5432").unwrap());
    let (here, _there) = tokio::io::duplex(1 << 16);
    let error = ends(outgoing.handshake("db.corp", here, SOON)).await;
    assert_eq!(timed_out(&error), Some("the TLS handshake"));
}

#[tokio::test]
async fn an_answer_and_its_parts_are_not_waited_for_for_ever() {
    for (says, begins, goes_on, what) in [
        ("", SOON, LATE, "the answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun", LATE, SOON, "the next part of the answer"),
    ] {
        let times = Times { connect: begins, first_byte: begins, between_bytes: goes_on };
        let (address, served) = server(says);
        let outgoing = outgoing(Names(None), format!("http://{address}").parse().unwrap());
        let empty: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(format!("http://{address}/")).body(empty).unwrap();
        let error = ends(async {
            let mut body = outgoing.send(request, times).await?.into_body();
            loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(*error.downcast().unwrap()),
                    None => return Ok(()),
                }
            }
        });
        assert_eq!(timed_out(&error.await), Some(what));
        served.join().unwrap();
    }
}

#[tokio::test]
async fn what_a_token_endpoint_answers_is_checked_and_not_waited_for_for_ever() {
    let large = format!("{{\"access_token\": \"{}\"}}", "x".repeat(ANSWER_BYTES_MAX));
    for (answer, problem) in [
        (Some(large.as_str()), "answers more than 65536 bytes"),
        (Some(r#"{"access_token": "x", "token_type": "mac"}"#), "is no bearer token"),
        (None, "takes longer than 0 s"),
    ] {
        let answer = answer.map(|answer| Bytes::copy_from_slice(answer.as_bytes()));
        let send = Arc::new(move |_| -> Answering {
            let answer = answer.clone();
            Box::pin(async move {
                let Some(answer) = answer else { return pending().await };
                Ok(Response::new(Full::new(answer).map_err(|never| match never {}).boxed_unsync()))
            })
        });
        let client = || TokenClient::new("it", Tasks::default(), send.clone(), Arc::new(NoVault), Clock::start());
        let logins = Logins::new(Vec::new(), client(), Clock::start(), 1, Arc::default());
        let mut client = client();
        client.time_max = SOON;
        let oauth = OAuth {
            token_url: Uri::from_static("https://login.example.com/token"),
            client_id: "client".into(),
            client_secret: None,
            in_body: true,
            scope: None,
            audience: None,
            refresh_token: None,
        };
        let error = ends(client.token("api", &oauth, &logins)).await.to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_client_key_that_was_replaced_is_shown_on_no_socket_any_more() {
    let outgoing = outgoing(Names(None), "https://api.example.com".parse().unwrap());
    let to = Destination::parse("https", "api.example.com").unwrap();
    let place = outgoing.policy.decide("GET", &to).unwrap().place;
    for fingerprint in [[1; 32], [2; 32]] {
        let config = Trust::nobody().client(None).unwrap();
        let identified = Identified { place: 0, fingerprint, config };
        outgoing.egress.pool(&outgoing.policy, place, Some(&identified)).unwrap();
    }
    let shown: Vec<_> = outgoing.egress.pools.lock().unwrap().keys().copied().collect();
    assert_eq!(shown, [(place, Some((0, [2; 32])))]);
}

#[tokio::test]
async fn a_run_remembers_only_so_many_addresses() {
    let many =
        (0..2 * REMEMBERED_MAX as u128).map(|host| IpAddr::from(Ipv6Addr::from((0x2606_4700 << 96) + host))).collect();
    let outgoing = outgoing(Names(Some(many)), Pattern::tcp("db.corp:5432").unwrap());
    assert_eq!(outgoing.found("db.corp", LATE).await.unwrap().len(), 2 * REMEMBERED_MAX);
    assert_eq!(outgoing.tcp.known.lock().unwrap().len(), REMEMBERED_MAX);
}
