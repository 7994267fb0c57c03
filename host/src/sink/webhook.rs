//! The sink that sends entries to a URL. One request at a time; the next one leaves when this one was answered with a 2xx, and until
//! then it is sent again, with the same entries and the same id. What is sent is up to `format`, what an answer means to `answer`.

mod answer;
mod cloudevents;
mod format;
mod openidm;
mod signature;

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use secrecy::ExposeSecret;
use tidewaiter_core::grant::destination::{BadDestination, Destination};
use tidewaiter_core::journal::Entry;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub(crate) use self::answer::REFUSALS;
pub use self::format::Format;
use self::format::Message;
use self::signature::Key;
use super::{Delivering, Journal, Sink, Undelivered};
use crate::clock::Clock;
use crate::egress::{Body, EgressError, Endpoint, Outside};
use crate::secret::{Secret, Source};

/// Who we are to servers.
const USER_AGENT: &str = concat!("tidewaiter/", env!("CARGO_PKG_VERSION"));

/// Where entries are sent, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where. Its path and query may be as good as a secret, and are told nowhere.
    pub url: Uri,
    /// In whose words.
    pub format: Format,
    /// What requests are signed with; none: they aren't.
    pub secret: Option<Source>,
    /// The token that is shown; none: none.
    pub bearer: Option<Source>,
    /// The most entries of a request.
    pub batch_count_max: usize,
    /// The most bytes of a request, before it is compressed. One entry that is larger is sent by itself.
    pub batch_bytes_max: usize,
    /// Compress it.
    pub gzip: bool,
    /// How long a request may take, until its answer begins.
    pub time_max: Duration,
    /// What the server answers to an entry that it won't ever take.
    pub refusals: Vec<StatusCode>,
}

/// What is put into requests, read from where operators keep it.
pub(crate) struct Logins {
    key: Option<Key>,
    bearer: Option<Secret>,
}

impl Settings {
    /// The server.
    ///
    /// # Errors
    /// The URL has none that can be told.
    pub(crate) fn server(&self) -> Result<Destination, BadDestination> {
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        Destination::parse(self.url.scheme_str().unwrap_or_default(), authority)
    }

    /// Reads its secrets. An error begins with the key that is wrong, and holds no secret.
    pub(crate) async fn logins(&self) -> Result<Logins, String> {
        let mut logins = Logins { key: None, bearer: None };
        if let Some(source) = &self.secret {
            let secret = source.read().await.map_err(|error| format!("secret: {error}"))?;
            logins.key = Some(Key::parse(&secret).map_err(|problem| format!("secret: {source} {problem}"))?);
        }
        if let Some(source) = &self.bearer {
            let bearer = source.read().await.map_err(|error| format!("bearer: {error}"))?;
            authorization(&bearer).map_err(|problem| format!("bearer: {source} {problem}"))?;
            logins.bearer = Some(bearer);
        }
        Ok(logins)
    }
}

fn authorization(bearer: &Secret) -> Result<HeaderValue, &'static str> {
    let text = Zeroizing::new([b"Bearer ", bearer.expose_secret()].concat());
    let mut value = HeaderValue::from_bytes(&text).map_err(|_| "has what no header can have")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends entries to a URL.
#[derive(Debug)]
pub struct WebhookSink {
    name: String,
    server: Destination,
    settings: Settings,
    endpoint: Endpoint,
    clock: Clock,
    /// The last entry of what was sent and not taken yet: nothing is added to it, whatever comes meanwhile.
    tried: Option<u64>,
}

impl WebhookSink {
    /// The sink of this name.
    ///
    /// # Errors
    /// TLS can't be set up, or the URL is none.
    pub fn new(name: String, settings: Settings, outside: &Outside, clock: Clock) -> Result<Self, EgressError> {
        let (server, endpoint) = (settings.server()?, Endpoint::new(outside)?);
        Ok(Self { name, server, settings, endpoint, clock, tried: None })
    }

    async fn send(&mut self, mut entries: Vec<Entry>) -> Result<u64, Undelivered> {
        // What was sent and never taken may be given up by now.
        let first = entries.first().map_or(0, |entry| entry.id.sequence);
        if let Some(tried) = self.tried.filter(|tried| first <= *tried) {
            entries.retain(|entry| entry.id.sequence <= tried);
        }
        let (format, bytes_max, gzip) = (self.settings.format, self.settings.batch_bytes_max, self.settings.gzip);
        let packed = spawn_blocking(move || pack(format, &entries, bytes_max, gzip)).await;
        let (message, last) = packed.map_err(Undelivered::because)?.map_err(Undelivered::because)?;
        self.tried = Some(last);
        match message {
            Some(message) => self.post(message).await?,
            None => tracing::info!(
                target: "tidewaiter::sink", sink = self.name, code = "not-in-format", position = last,
                "entry {last} is not sent: the format {format} has no word for it"
            ),
        }
        self.tried = None;
        Ok(last)
    }

    async fn post(&self, message: Message) -> Result<(), Undelivered> {
        let logins = self.settings.logins().await.map_err(Undelivered::because)?;
        let request = self.request(message, &logins).map_err(Undelivered::because)?;
        let max = self.settings.time_max;
        let answer = timeout(max, self.endpoint.send(request)).await;
        let answer = answer.map_err(|_| {
            Undelivered::because(format!("{} took longer than the {} ms allowed", self.server, max.as_millis()))
        })?;
        let answer = answer.map_err(Undelivered::because)?;
        answer::judge((&self.server, &self.settings.refusals), answer, logins.bearer.as_ref(), self.clock.now()).await
    }

    fn request(&self, message: Message, logins: &Logins) -> Result<Request<Body>, String> {
        let Message { id, query, content_type, body } = message;
        let seconds = self.clock.now().0 / 1000;
        let url = match query {
            Some(query) => openidm::with_query(&self.settings.url, &query).map_err(|error| error.to_string())?,
            None => self.settings.url.clone(),
        };
        let mut builder = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, content_type)
            .header("webhook-timestamp", seconds);
        if self.settings.gzip {
            builder = builder.header(header::CONTENT_ENCODING, "gzip");
        }
        if let Some(key) = &logins.key {
            builder = builder.header("webhook-signature", key.sign(&id, seconds, &body));
        }
        if let Some(bearer) = &logins.bearer {
            builder = builder.header(header::AUTHORIZATION, authorization(bearer)?);
        }
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        builder.header("webhook-id", id).body(body).map_err(|error| error.to_string())
    }
}

impl Sink for WebhookSink {
    fn entries_max(&self) -> usize {
        self.settings.batch_count_max
    }

    /// The server knows what it has, and nobody asks it: what was sent after the stored position is sent again.
    fn resume(&mut self, _: Journal, after: u64) -> io::Result<u64> {
        Ok(after)
    }

    fn deliver(&mut self, entries: Vec<Entry>) -> Delivering<'_> {
        Box::pin(self.send(entries))
    }
}

/// What is sent for the first of these entries, and the sequence of the last one in it.
fn pack(format: Format, entries: &[Entry], bytes_max: usize, gzip: bool) -> io::Result<(Option<Message>, u64)> {
    let (message, last) = format.message(entries, bytes_max)?;
    let compressed = |message: Message| -> io::Result<Message> {
        // Its header has no time, so that the same entries are always the same bytes.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&message.body)?;
        Ok(Message { body: encoder.finish()?, ..message })
    };
    let message = match gzip {
        true => message.map(compressed).transpose()?,
        false => message,
    };
    Ok((message, last))
}
