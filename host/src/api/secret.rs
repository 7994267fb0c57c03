//! The API's bearer token: 256 random bits in a file that only this user can read. May not show it.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use subtle::ConstantTimeEq;
use tidewaiter_core::text::hex;

const SECRET_FILE: &str = "http-token";
const SECRET_BYTES: usize = 32;
/// Shorter ones, written by hand, are refused.
const SECRET_CHARS_MIN: usize = 32;
const SECRET_CHARS_MAX: u64 = 1024;

pub(super) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads the token file of a data directory, or makes it.
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let path = data.join(SECRET_FILE);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let secret = random().map_err(named)?;
                let written = file.write_all(format!("{secret}\n").as_bytes()).and_then(|()| file.sync_all());
                // Half a secret would be in the way of the next start.
                written.inspect_err(|_| drop(std::fs::remove_file(&path))).map_err(named)?;
                Ok(Self(secret))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(&path).map_err(named),
            Err(error) => Err(named(error)),
        }
    }

    /// Whether this is it. Takes the same time wherever they differ.
    pub(super) fn is(&self, token: &str) -> bool {
        self.0.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

fn read(path: &Path) -> io::Result<Secret> {
    let file = OpenOptions::new().read(true).open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("mode {mode:o} lets others read the API's token; `chmod 600` it")));
    }
    let mut text = String::new();
    file.take(SECRET_CHARS_MAX).read_to_string(&mut text)?;
    match text.trim().len() >= SECRET_CHARS_MIN {
        true => Ok(Secret(text.trim().to_owned())),
        false => Err(io::Error::other(format!(
            "fewer than {SECRET_CHARS_MIN} characters; remove the file, and the next start makes a good one"
        ))),
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_the_file_once_and_refuses_one_that_others_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let made = Secret::open(folder.path()).unwrap();
        let path = folder.path().join(SECRET_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.trim().len(), std::fs::metadata(&path).unwrap().mode() & 0o777), (64, 0o600));
        assert!(made.is(text.trim()) && !made.is("") && !made.is(&text));
        assert!(Secret::open(folder.path()).unwrap().is(text.trim()));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Secret::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("http-token") && error.contains("640"), "{error}");
    }
}
