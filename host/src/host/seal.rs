//! The keys of the db, read from where the operator keeps them, and the refresh tokens that are kept with them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::Encryption;
use crate::db::{Db, Keys};
use crate::egress::{Storing, Vault};
use crate::secret::{Secret, SecretError, Source, fingerprint};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// A key that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can't be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is something else.
    #[error("{0} has no key of {KEY_BYTES} bytes in base64 or hexadecimal: make one with `openssl rand -base64 32`")]
    NoKey(Source),
}

/// Reads the keys.
///
/// # Errors
/// One can't be read, or is no key.
pub(crate) async fn keys(encryption: &Encryption) -> Result<Keys, KeyError> {
    let mut keys = Keys::default();
    for old in &encryption.old_keys {
        keys = keys.with_old(&*read(old).await?);
    }
    match &encryption.key {
        Some(key) => Ok(keys.with_current(&*read(key).await?)),
        None => Ok(keys),
    }
}

async fn read(source: &Source) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let secret = source.read().await?;
    let text = secret.expose_secret();
    let hex = |text: &[u8]| {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 2 * KEY_BYTES && text.is_ascii())?;
        (0..KEY_BYTES).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect::<Option<Vec<u8>>>()
    };
    let bytes = Zeroizing::new(hex(text).or_else(|| BASE64_STANDARD.decode(text).ok()).unwrap_or_default());
    let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
    key.map(Zeroizing::new).map_err(|_| KeyError::NoKey(source.clone()))
}

/// Keeps refresh tokens in the db.
#[derive(Debug)]
pub(crate) struct DbVault(pub(crate) Db);

/// A token, and which secret of the operator's it goes back to: with another one there, it is of no use.
#[derive(Serialize, Deserialize)]
struct Kept {
    since: [u8; 32],
    token: Vec<u8>,
}

impl Vault for DbVault {
    fn load(&self, credential: &str, in_place_of: &Secret) -> Result<Option<Secret>, String> {
        let kept = self.0.kept(credential).map_err(|error| error.to_string())?;
        let Some(kept) = kept.map(Zeroizing::new) else { return Ok(None) };
        let kept: Kept = serde_json::from_slice(&kept).map_err(|_| "what is kept of it is damaged".to_owned())?;
        Ok((kept.since == fingerprint(in_place_of)).then(|| Secret::from(kept.token)))
    }

    fn store(&self, credential: &str, in_place_of: &Secret, secret: Secret) -> Storing {
        let (db, credential) = (self.0.clone(), credential.to_owned());
        let kept = Kept { since: fingerprint(in_place_of), token: secret.expose_secret().to_vec() };
        Box::pin(async move {
            let content = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
            db.keep(&credential, content).await.map_err(|error| error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_read_in_either_form_and_nothing_else_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let source = Source::File(path.clone());
        let hex = tidewaiter_core::text::hex(&(0..32).collect::<Vec<u8>>());
        let base64 = BASE64_STANDARD.encode((0..32).collect::<Vec<u8>>());
        let mut ids = Vec::new();
        for text in [&hex, &base64, &format!("{base64}\n")] {
            std::fs::write(&path, text).unwrap();
            let encryption = Encryption { key: Some(source.clone()), old_keys: Vec::new() };
            ids.push(keys(&encryption).await.unwrap().current().unwrap());
        }
        assert!(ids.iter().all(|id| *id == ids[0]));
        for text in ["password", &hex[1..], &format!("{hex}00"), "AAAA", &"\u{e9}".repeat(32)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&source).await, Err(KeyError::NoKey(_))), "{text}");
        }
    }
}
