//! The local door: a Unix socket in the data directory, over which the commands ask a running host. One line of JSON asks, one line
//! answers. Who asks is what the kernel says of the other end; only this user and root are let in.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tidewaiter_core::state::Actor;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// Clients at a time; more wait until one leaves.
const CLIENTS_MAX: usize = 64;
use crate::clients::Clients;
use crate::host::Host;
use crate::host::ask::{Answer, Ask, Problem, ProblemCode};

const SOCKET_FILE: &str = "tidewaiter.sock";
/// The longest path that the kernel takes for a socket, in bytes.
const PATH_BYTES_MAX: usize = 107;
/// The longest question, in bytes. A token of 64 KiB in base64 and its escapes fit.
const ASK_BYTES_MAX: usize = 256 * 1024;
/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a client may ask nothing: somebody reads a page of changes before the next one is asked for.
const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// How long a client may take to fetch an answer.
const FETCH_MAX: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Answer(Answer),
    Error(Problem),
}

/// Where the socket of a data directory is.
///
/// # Errors
/// Its path is longer than the kernel takes.
pub fn path(data: &Path) -> io::Result<PathBuf> {
    let path = data.join(SOCKET_FILE);
    match path.as_os_str().len() > PATH_BYTES_MAX {
        false => Ok(path),
        true => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{}: a socket's path has at most {PATH_BYTES_MAX} bytes; use a shorter data folder",
                path.display()
            ),
        )),
    }
}

/// The open door.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

impl Server {
    /// Opens it. Only for whoever has the data directory's lock: a socket that is there is a dead host's, and goes.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let path = path(data)?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(named)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
        let owner = std::fs::metadata(&path).map_err(named)?.uid();
        Ok(Self { listener, path, owner })
    }

    /// Serves until the host closes; answers that are under way then are still given.
    pub async fn serve(self, host: Arc<Host>) {
        let accept = async || Ok(self.listener.accept().await?.0);
        let clients =
            Clients::serve(&host, CLIENTS_MAX, accept, |stream| client(stream, self.owner, Arc::clone(&host))).await;
        let _ = std::fs::remove_file(&self.path);
        clients.last_answers(&host).await;
    }
}

async fn client(stream: UnixStream, owner: u32, host: Arc<Host>) {
    let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { return };
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(ASK_BYTES_MAX));
    let closing = host.closing();
    let mut early = None;
    loop {
        let asked = match early.take() {
            Some(line) => Some(Ok(Some(line))),
            None => closing.run_until_cancelled(tokio::time::timeout(SILENCE_MAX, lines.next())).await,
        };
        let reply = match asked {
            Some(Ok(Some(Ok(line)))) if uid == owner || uid == 0 => {
                let mut answering = pin!(answer(&line, uid, &host));
                loop {
                    // Who is gone needs no answer, and leaves its place to others.
                    tokio::select! {
                        reply = &mut answering => break reply,
                        more = lines.next(), if early.is_none() => match more {
                            None => return,
                            more => early = more,
                        },
                    }
                }
            }
            Some(Ok(Some(Ok(_)))) => bad_request(format!("uid {uid} is not let in")),
            Some(Ok(Some(Err(LinesCodecError::MaxLineLengthExceeded)))) => {
                bad_request(format!("a line of more than {ASK_BYTES_MAX} bytes"))
            }
            _ => return,
        };
        let Ok(text) = serde_json::to_string(&reply) else { return };
        let sent = tokio::time::timeout(FETCH_MAX, lines.send(text)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer(line: &str, uid: u32, host: &Host) -> Reply {
    let ask: Ask = match serde_json::from_str(line) {
        Ok(ask) => ask,
        Err(error) => return bad_request(format!("not understood: {error}")),
    };
    match Box::pin(host.answer(ask, Actor::Uid(uid))).await {
        Ok(answer) => Reply::Answer(answer),
        Err(error) => Reply::Error(error.into()),
    }
}

fn bad_request(message: String) -> Reply {
    Reply::Error(Problem { code: ProblemCode::BadRequest, message })
}

/// A way to a running host.
#[derive(Debug)]
pub struct Client {
    lines: Framed<UnixStream, LinesCodec>,
    path: PathBuf,
}

impl Client {
    /// Connects to the host that serves a data directory; none if there is none.
    ///
    /// # Errors
    /// There is one that can't be reached.
    pub async fn connect(data: &Path) -> io::Result<Option<Self>> {
        let Ok(path) = path(data) else { return Ok(None) };
        Self::connect_to(path).await
    }

    /// Connects to the same host again.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn another(&self) -> io::Result<Option<Self>> {
        Self::connect_to(self.path.clone()).await
    }

    async fn connect_to(path: PathBuf) -> io::Result<Option<Self>> {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let lines = Framed::new(stream, LinesCodec::new_with_max_length(ANSWER_BYTES_MAX));
                Ok(Some(Self { lines, path }))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The host's, or it went away.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer, Problem> {
        let path = self.path.display().to_string();
        let lost =
            |what: String| Problem { code: ProblemCode::Host, message: format!("the host behind {path} {what}") };
        let gone = |what: String| Problem { code: ProblemCode::Gone, ..lost(what) };
        let text = serde_json::to_string(ask).map_err(|error| lost(format!("can't be asked: {error}")))?;
        // A host that refuses without reading says why all the same.
        let sent = self.lines.send(text).await;
        let reply = match self.lines.next().await {
            Some(Ok(line)) => serde_json::from_str(&line).map_err(|error| lost(format!("answered {error}")))?,
            Some(Err(LinesCodecError::Io(error))) => return Err(gone(format!("went away: {error}"))),
            Some(Err(error)) => return Err(lost(format!("can't be heard: {error}"))),
            None => return Err(gone(sent.err().map_or("went away".into(), |error| format!("went away: {error}")))),
        };
        match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::Error(problem) => Err(problem),
        }
    }
}
