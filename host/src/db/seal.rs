//! Encryption of what is stored: segments, states, token history, run reports, dead letters and refresh tokens, each by itself. Without a key
//! everything is stored as it is, and both can be read side by side, so that a key can come, change and go while the db is in use.
//!
//! | bytes | sealed |
//! |---|---|
//! | 0 | 0xE5: neither JSON nor a segment begins with it |
//! | 1..5 | id of the key: the first 4 bytes of a hash of it |
//! | 5..29 | nonce, random |
//! | 29.. | XChaCha20-Poly1305 of the content, with the bytes before it and what kind of row it is |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::segment::{Segment, SegmentDamage};
use super::store::ReadError;

const SEALED: u8 = 0xE5;
const ID_AT: usize = 1;
const NONCE_AT: usize = 5;
const CONTENT_AT: usize = 29;

/// What a row is: one kind can't be passed off as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    State,
    Token,
    Run,
    Vault,
    Shadow,
    DeadLetter,
    Refused,
}

impl Kind {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Segment => b"segment",
            Self::State => b"state",
            Self::Token => b"token",
            Self::Run => b"run",
            Self::Vault => b"vault",
            Self::Shadow => b"shadow",
            Self::DeadLetter => b"dead-letter",
            Self::Refused => b"refused-entry",
        }
    }
}

/// The id of a key, which tells it apart and says nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The keys of a db: the one that is used, and those that were.
#[derive(Clone, Default)]
pub struct Keys {
    current: Option<KeyId>,
    known: BTreeMap<KeyId, XChaCha20Poly1305>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("current", &self.current).field("known", &self.known.keys()).finish()
    }
}

/// What is sealed can't be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("it is encrypted with the key {0}, which is not configured: name it under `encryption.old-keys`")]
    Key(KeyId),
    #[error("it is encrypted, and has been changed since")]
    Changed,
}

impl Keys {
    /// Adds a key that is only read with.
    #[must_use]
    pub fn with_old(mut self, key: &[u8; 32]) -> Self {
        self.add(key);
        self
    }

    /// Sets the key that is written with from now on.
    #[must_use]
    pub fn with_current(mut self, key: &[u8; 32]) -> Self {
        self.current = Some(self.add(key));
        self
    }

    /// The key that is written with.
    pub fn current(&self) -> Option<KeyId> {
        self.current
    }

    fn add(&mut self, key: &[u8; 32]) -> KeyId {
        let hash = Sha256::new().chain_update(b"tidewaiter key id").chain_update(key).finalize();
        let id = KeyId(u32::from_be_bytes(std::array::from_fn(|i| hash[i])));
        self.known.insert(id, XChaCha20Poly1305::new(key.into()));
        id
    }

    /// What is stored in the place of this: the same, where there is no key.
    pub(super) fn seal(&self, kind: Kind, content: Vec<u8>) -> Vec<u8> {
        let Some((id, cipher)) = self.current.and_then(|id| Some((id, self.known.get(&id)?))) else { return content };
        let mut nonce = [0; CONTENT_AT - NONCE_AT];
        getrandom::fill(&mut nonce).expect("the kernel has random bytes");
        let mut sealed = Vec::with_capacity(CONTENT_AT + content.len() + 16);
        sealed.push(SEALED);
        sealed.extend_from_slice(&id.0.to_be_bytes());
        sealed.extend_from_slice(&nonce);
        let aad = [&sealed[..NONCE_AT], kind.name()].concat();
        let payload = Payload { msg: &content, aad: &aad };
        sealed.extend(cipher.encrypt(&XNonce::from(nonce), payload).expect("far below the cipher's limit of 256 GiB"));
        sealed
    }

    /// What was sealed, or was never.
    pub(super) fn open<'a>(&self, kind: Kind, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError> {
        let Some(id) = sealed_with(stored) else { return Ok(Cow::Borrowed(stored)) };
        let cipher = self.known.get(&id).ok_or(SealError::Key(id))?;
        let (head, content) = stored.split_at_checked(CONTENT_AT).ok_or(SealError::Changed)?;
        let nonce: [u8; CONTENT_AT - NONCE_AT] = std::array::from_fn(|i| head[NONCE_AT + i]);
        let aad = [&head[..NONCE_AT], kind.name()].concat();
        let opened = cipher.decrypt(&XNonce::from(nonce), Payload { msg: content, aad: &aad });
        opened.map(Cow::Owned).map_err(|_| SealError::Changed)
    }

    /// A segment as it was before it was sealed.
    pub(super) fn segment<'a>(&self, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, SegmentDamage> {
        self.open(Kind::Segment, stored).map_err(|error| SegmentDamage::Sealed(error.to_string()))
    }

    /// Whether this is stored otherwise than it would be now.
    pub(super) fn is_stale(&self, stored: &[u8]) -> bool {
        sealed_with(stored) != self.current
    }

    /// The bytes of a small row.
    pub(super) fn row(&self, kind: Kind, value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        Ok(self.seal(kind, serde_json::to_vec(value)?))
    }

    /// A small row from its bytes; `name` says which one if it can't be read.
    pub(super) fn parse<T: DeserializeOwned>(
        &self,
        kind: Kind,
        stored: &[u8],
        name: impl FnOnce() -> String,
    ) -> Result<T, ReadError> {
        let read = match self.open(kind, stored) {
            Ok(content) => serde_json::from_slice(&content).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        read.map_err(|problem| ReadError::Row { row: name(), problem })
    }
}

/// Segments as they are stored.
pub(super) fn sealed(segments: Vec<Segment>, keys: &Keys) -> Vec<Segment> {
    let seal = |Segment { bytes, count }| Segment { bytes: keys.seal(Kind::Segment, bytes), count };
    segments.into_iter().map(seal).collect()
}

fn sealed_with(stored: &[u8]) -> Option<KeyId> {
    let id: [u8; NONCE_AT - ID_AT] = stored.get(ID_AT..NONCE_AT)?.try_into().ok()?;
    (stored[0] == SEALED).then(|| KeyId(u32::from_be_bytes(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_its_key_and_no_other() {
        let (one, other) = (Keys::default().with_current(&[1; 32]), Keys::default().with_current(&[2; 32]));
        let sealed = one.seal(Kind::State, b"{}".to_vec());
        assert!(!sealed.windows(2).any(|part| part == b"{}"));
        assert_eq!(one.open(Kind::State, &sealed).unwrap(), &b"{}"[..]);
        assert_eq!(other.open(Kind::State, &sealed), Err(SealError::Key(one.current().unwrap())));
        assert_eq!(Keys::default().open(Kind::State, &sealed), Err(SealError::Key(one.current().unwrap())));
        assert_eq!(one.open(Kind::Run, &sealed), Err(SealError::Changed), "another kind of row");
        let rotated = Keys::default().with_old(&[1; 32]).with_current(&[2; 32]);
        assert_eq!(rotated.open(Kind::State, &sealed).unwrap(), &b"{}"[..]);
        assert!(rotated.is_stale(&sealed) && !one.is_stale(&sealed) && one.is_stale(b"{}"));
        assert!(!rotated.is_stale(&rotated.seal(Kind::State, b"x".to_vec())));
        assert_ne!(one.seal(Kind::State, b"x".to_vec()), one.seal(Kind::State, b"x".to_vec()), "a nonce each");
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_what_is_not_can_be_read() {
        let none = Keys::default();
        assert_eq!(none.seal(Kind::Segment, vec![1, 2]), [1, 2]);
        assert_eq!(Keys::default().with_current(&[1; 32]).open(Kind::Segment, &[1, 2]).unwrap(), &[1, 2][..]);
    }

    #[test]
    fn every_change_is_found() {
        let keys = Keys::default().with_current(&[3; 32]);
        let sealed = keys.seal(Kind::Token, b"content".to_vec());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 4;
            let opened = keys.open(Kind::Token, &changed);
            // Without its first byte it isn't sealed any more; whoever reads it finds no JSON and no segment.
            assert!(opened.is_err() || opened.unwrap() == changed.as_slice(), "byte {at}");
            assert!(
                keys.open(Kind::Token, &sealed[..at]).map_or(true, |opened| *opened == sealed[..at]),
                "cut at {at}"
            );
        }
    }
}
