//! Secrets, and where operators keep them: a file, an environment variable, or what a command prints. Read when they are needed, wiped
//! from memory after, and shown nowhere.

use std::hash::{Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

/// Bytes that nobody sees by accident: `Debug` hides them, and they are wiped when they are dropped.
pub type Secret = SecretSlice<u8>;

/// A secret, on its way.
pub type Reading = Pin<Box<dyn Future<Output = Result<Secret, SecretError>> + Send>>;

/// The largest secret, in bytes: a chain of certificates with its key fits.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long a command may take that prints one.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// A place for secrets of a program that embeds a host.
pub trait Secrets: std::fmt::Debug + Send + Sync {
    /// Reads the secret of a name, each time that it is needed.
    fn read(&self, name: &str) -> OwnReading;
}

/// A secret, on its way. The error is for the operator, and has nothing of it.
pub type OwnReading = Pin<Box<dyn Future<Output = Result<Secret, String>> + Send>>;

/// A secret in a place of the program's own.
#[derive(Clone, Debug)]
pub struct Own {
    secrets: Arc<dyn Secrets>,
    name: String,
}

impl Own {
    /// The secret of this name.
    pub fn new(secrets: Arc<dyn Secrets>, name: impl Into<String>) -> Self {
        Self { secrets, name: name.into() }
    }

    fn place(&self) -> (usize, &str) {
        (Arc::as_ptr(&self.secrets).cast::<()>().addr(), &self.name)
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Own {}

impl Hash for Own {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.place().hash(hasher);
    }
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// What a file holds, without the end of its last line.
    File(PathBuf),
    /// An environment variable of the host.
    Env(String),
    /// What a program prints, likewise. With its arguments; no shell is between.
    Command(Vec<String>),
    /// Where the program that embeds the host keeps it. Not in a file.
    Own(Own),
}

/// A secret that can't be read. Says where it is, never what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret from {place} can't be read: {problem}")]
pub struct SecretError {
    place: String,
    problem: String,
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// It isn't there, is empty, or is too large.
    pub fn read(&self) -> Reading {
        let source = self.clone();
        Box::pin(async move {
            let bytes = match &source {
                Self::File(path) => file(path).await,
                Self::Env(name) => env(name),
                Self::Command(words) => command(words).await,
                Self::Own(Own { secrets, name }) => {
                    let read = secrets.read(name).await.map_err(io::Error::other);
                    read.map(|secret| Zeroizing::new(secret.expose_secret().to_vec()))
                }
            };
            let bytes = bytes.map_err(|error| source.bad(error.to_string()))?;
            match bytes.len() {
                0 => Err(source.bad("it is empty".to_owned())),
                _ => Ok(Secret::from(bytes.to_vec())),
            }
        })
    }

    fn bad(&self, problem: String) -> SecretError {
        SecretError { place: self.to_string(), problem }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Own(Own { name, .. }) => write!(f, "the program, by the name {name}"),
            // Its arguments may be secrets themselves.
            Self::Command(words) => write!(f, "the command {}", words.first().map_or("", String::as_str)),
        }
    }
}

/// Tells whether a secret is still the same, and nothing else of it.
pub(crate) fn fingerprint(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.expose_secret()).into()
}

async fn file(path: &PathBuf) -> io::Result<Zeroizing<Vec<u8>>> {
    bounded(tokio::fs::File::open(path).await?).await
}

#[expect(clippy::disallowed_methods, reason = "where the operator said that the secret is")]
fn env(name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(name).ok_or_else(|| io::Error::other("it is not set"))?;
    Ok(Zeroizing::new(value.into_vec()))
}

async fn command(words: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let read = async {
        let bytes = bounded(stdout).await?;
        let status = child.wait().await?;
        if status.success() { Ok(bytes) } else { Err(io::Error::other(status.to_string())) }
    };
    let timed = tokio::time::timeout(COMMAND_TIME, read).await;
    timed.map_err(|_| io::Error::other(format!("it takes longer than {} s", COMMAND_TIME.as_secs())))?
}

/// All of it, without the end of the last line.
async fn bounded(from: impl tokio::io::AsyncRead + Unpin) -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grown, so that no copy of it is left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    let mut from = from.take(SECRET_BYTES_MAX as u64 + 1);
    while from.read_buf(&mut *bytes).await? > 0 {}
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {SECRET_BYTES_MAX} bytes")));
    }
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(source: Source) -> Result<Vec<u8>, String> {
        source.read().await.map(|secret| secret.expose_secret().to_vec()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_secret_is_read_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (text, secret) in
            [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\nb\n\n", "a\nb\n")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(Source::File(path.clone())).await.unwrap(), secret.as_bytes());
        }
        let words = |words: &[&str]| Source::Command(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(read(words(&["printf", "%s\\n", "a b"])).await.unwrap(), b"a b");
        assert!(!read(Source::Env("PATH".into())).await.unwrap().is_empty());
        std::fs::write(&path, "\n").unwrap();
        assert!(read(Source::File(path.clone())).await.unwrap_err().ends_with("it is empty"));
        std::fs::write(&path, vec![b'x'; SECRET_BYTES_MAX + 1]).unwrap();
        assert!(read(Source::File(path)).await.unwrap_err().ends_with("more than 65536 bytes"));
        assert!(read(Source::Env("TIDEWAITER_NONE".into())).await.unwrap_err().ends_with("it is not set"));
        let failed = read(words(&["sh", "-c", "echo s3cret; echo s3cret >&2; exit 3"])).await.unwrap_err();
        assert_eq!(failed, "the secret from the command sh can't be read: exit status: 3");
    }

    #[tokio::test]
    async fn a_secret_is_shown_nowhere() {
        let secret = Source::Command(vec!["echo".into(), "s3cret".into()]).read().await.unwrap();
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
