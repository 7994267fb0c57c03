//! The shadow of a type: what the journal last said of each object, as a hash. It follows the journal: rows are brought up from
//! the entries behind its position whenever somebody compares, so that live sync pays nothing for it, and a crash leaves it behind
//! and never wrong. A type has one from its first pass on.
//!
//! Keys of rows are keyed hashes of uids, and a row's uid is encrypted, by secrets that the shadow's own row has. So a file gives
//! away no uid where a key is configured, and another key means one row to write.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tidewaiter_core::journal::Body;
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, ConnectorObject};
use tidewaiter_core::shadow::Form;
use tidewaiter_core::time::UnixMillis;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;

use super::segment::Unpacked;
use super::store::{Chore, Done, ReadError};
use super::writer::Order;
use super::{CommitError, Db, unexpected};

/// Rows that are written in one transaction; others get their turn in between.
const ROWS_AT_ONCE: usize = 50_000;
/// Bytes of their uids that are held meanwhile; the last segment may be beyond.
const UIDS_BYTES_AT_ONCE: usize = 16 * 1024 * 1024;

/// How long somebody who brings a shadow up is waited for.
const HOLD_WAIT: Duration = Duration::from_secs(5);

/// The row of a shadow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shadow {
    /// Its rows begin with it.
    pub(super) id: u32,
    pub(super) secrets: Secrets,
    /// What makes two objects the same.
    pub(super) form: Form,
    /// Entries up to this sequence are in it.
    pub(super) position: u64,
    /// How many rows it has.
    pub(super) rows: u64,
    /// When the last complete pass ended.
    pub(super) complete_at: Option<UnixMillis>,
    /// In which generation it began.
    pub(super) complete_generation: Option<u64>,
    /// Counts objects that were erased: what was read of the journal before is read again.
    pub(super) erasures: u64,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Secrets {
    hash: [u8; 32],
    uids: [u8; 32],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Shadow {
    /// A shadow that knows nothing of the journal yet.
    pub(super) fn new(id: u32, form: Form) -> Self {
        let random = || {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).expect("the kernel has random bytes");
            bytes
        };
        let secrets = Secrets { hash: random(), uids: random() };
        Self { id, secrets, form, position: 0, rows: 0, complete_at: None, complete_generation: None, erasures: 0 }
    }

    /// How many objects it has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Entries up to this sequence are in it.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// When the last complete pass ended; none: there was none yet.
    pub fn complete_at(&self) -> Option<UnixMillis> {
        self.complete_at
    }

    /// In which generation the last complete pass began.
    pub fn complete_generation(&self) -> Option<u64> {
        self.complete_generation
    }

    /// Makes its keys and hashes.
    pub fn digester(&self) -> Digester {
        let mac = |domain: u8| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&self.secrets.hash).expect("a key of any length");
            mac.update(&[domain]);
            mac
        };
        let cipher = XChaCha20Poly1305::new(&self.secrets.uids.into());
        Digester { of_uid: mac(0), of_object: mac(1), cipher, form: self.form.clone(), written: Vec::new() }
    }
}

/// Makes the keys and hashes of a shadow.
pub struct Digester {
    of_uid: Hmac<Sha256>,
    of_object: Hmac<Sha256>,
    cipher: XChaCha20Poly1305,
    form: Form,
    written: Vec<u8>,
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// The key of an object's row.
    pub fn key(&self, uid: &str) -> u128 {
        digest(&self.of_uid, uid.as_bytes())
    }

    /// The hash of an object; none: it isn't a whole one.
    pub fn hash(&mut self, object: &ConnectorObject) -> Option<u128> {
        self.written.clear();
        self.form.write(object, &mut self.written).then(|| digest(&self.of_object, &self.written))
    }

    /// A uid as its row has it. The nonce is its key, so one nonce never meets two uids.
    fn conceal(&self, key: u128, uid: &str) -> Vec<u8> {
        self.cipher.encrypt(&nonce(key), uid.as_bytes()).expect("far below the cipher's limit of 256 GiB")
    }

    fn reveal(&self, key: u128, concealed: &[u8]) -> Result<String, ReadError> {
        let damaged =
            || ReadError::Row { row: format!("row {key:032x} of a shadow"), problem: "it was changed".into() };
        let uid = self.cipher.decrypt(&nonce(key), concealed).map_err(|_| damaged())?;
        String::from_utf8(uid).map_err(|_| damaged())
    }
}

fn digest(mac: &Hmac<Sha256>, bytes: &[u8]) -> u128 {
    let digest = mac.clone().chain_update(bytes).finalize().into_bytes();
    u128::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

fn nonce(key: u128) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..16].copy_from_slice(&key.to_be_bytes());
    XNonce::from(nonce)
}

/// What entries say of an object.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// It is there. The hash; none: not everything was said of it. And its uid, encrypted.
    Is(Option<u128>, Vec<u8>),
    /// It is gone.
    Gone,
}

/// What is written of a shadow alone.
#[derive(Debug)]
pub(super) enum ShadowChore {
    /// Begin one, or give one another form.
    Open { key: TypeKey, form: Form },
    /// Write what entries up to `to` said, if the shadow stands at `from`, and nothing was erased since it was read.
    Apply { key: TypeKey, from: u64, erasures: u64, to: u64, said: BTreeMap<u128, Said> },
    /// A pass came to its end.
    Complete { key: TypeKey, generation: Option<u64>, at: UnixMillis },
}

/// The key of a row, its hash, and its uid as it is stored.
pub(super) type StoredRow = (u128, Option<u128>, Vec<u8>);

const HAS_HASH: u8 = 1;
const UID_AT: usize = 17;

/// The bytes of a row: whether its hash is known, the hash, and the uid as it is encrypted.
pub(super) fn encode(hash: Option<u128>, uid: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(UID_AT + uid.len());
    bytes.push(if hash.is_some() { HAS_HASH } else { 0 });
    bytes.extend_from_slice(&hash.unwrap_or_default().to_le_bytes());
    bytes.extend_from_slice(uid);
    bytes
}

/// Hash and uid of a row. None: it is cut off.
pub(super) fn decode(bytes: &[u8]) -> Option<(Option<u128>, &[u8])> {
    let (head, uid) = bytes.split_at_checked(UID_AT)?;
    let hash = u128::from_le_bytes(std::array::from_fn(|i| head[1 + i]));
    Some(((head[0] & HAS_HASH != 0).then_some(hash), uid))
}

/// What was read of the journal to bring a shadow up.
struct Behind {
    said: BTreeMap<u128, Said>,
    uids_bytes: usize,
    /// Entries up to here are in it.
    to: u64,
    /// That was all.
    is_all: bool,
}

impl Db {
    /// The shadow of a type; none: nothing was ever compared.
    ///
    /// # Errors
    /// As `states`.
    pub fn shadow(&self, key: &TypeKey) -> Result<Option<Shadow>, ReadError> {
        self.inner.store.shadow(key)
    }

    /// The types that have a shadow.
    ///
    /// # Errors
    /// As `states`.
    pub fn shadows(&self) -> Result<BTreeMap<TypeKey, Shadow>, ReadError> {
        self.inner.store.shadows()
    }

    /// As `hold_shadow`, and waits a while for whoever is about to be done.
    pub async fn wait_for_shadow(&self, key: &TypeKey) -> Option<ShadowHold> {
        let turn = tokio::time::timeout(HOLD_WAIT, self.turn(key).lock_owned()).await.ok()?;
        Some(ShadowHold { db: self.clone(), key: key.clone(), _turn: turn })
    }

    /// Lets nobody else bring up the shadow of a type until this is dropped. None: somebody does.
    pub fn hold_shadow(&self, key: &TypeKey) -> Option<ShadowHold> {
        let turn = self.turn(key).try_lock_owned().ok()?;
        Some(ShadowHold { db: self.clone(), key: key.clone(), _turn: turn })
    }

    fn turn(&self, key: &TypeKey) -> Arc<Mutex<()>> {
        let mut turns = self.inner.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// What the journal says of a type behind the position of its shadow, as much as is written at once.
    fn behind(&self, key: &TypeKey, shadow: &Shadow) -> Result<Behind, ReadError> {
        let mut digester = shadow.digester();
        let first = self.inner.store.counters()?.first;
        let from = (shadow.position + 1).max(first);
        let mut behind = Behind { said: BTreeMap::new(), uids_bytes: 0, to: shadow.position, is_all: true };
        let last = self.inner.store.segments(Some(&key.connection), from, &mut |first, bytes| {
            let damaged = |damage| ReadError::Segment { first, damage };
            let segment = Unpacked::new(bytes).map_err(damaged)?;
            if behind.said.len() >= ROWS_AT_ONCE || behind.uids_bytes >= UIDS_BYTES_AT_ONCE {
                behind.is_all = false;
                return Ok(ControlFlow::Break(()));
            }
            behind.to = first + u64::from(segment.count) - 1;
            if segment.head.key != *key {
                return Ok(ControlFlow::Continue(()));
            }
            let skip = u32::try_from(from.saturating_sub(first)).unwrap_or(u32::MAX);
            for entry in segment.entries(skip) {
                let (body, _) = entry.map_err(damaged)?;
                behind.take(&body, &mut digester);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if behind.is_all {
            behind.to = last.max(behind.to);
        }
        Ok(behind)
    }

    /// Hands over the rows from a key on, until it is told to stop; and answers where to go on. None: that was all.
    ///
    /// # Errors
    /// As `states`.
    pub fn scan_shadow(
        &self,
        shadow: &Shadow,
        from: u128,
        visit: &mut VisitRow<'_>,
    ) -> Result<Option<u128>, ReadError> {
        let digester = shadow.digester();
        let mut from = from;
        loop {
            let rows = self.inner.store.shadow_range(shadow.id, from)?;
            for (key, hash, uid) in &rows {
                if !visit(*hash, Uid { digester: &digester, key: *key, concealed: uid })? {
                    return Ok(Some(*key));
                }
            }
            match rows.last() {
                Some((last, ..)) if *last < u128::MAX => from = last + 1,
                _ => return Ok(None),
            }
        }
    }

    async fn shadow_chore(&self, chore: ShadowChore) -> Result<(), CommitError> {
        match self.inner.writer.perform(Order::Chore(Chore::Shadow(Box::new(chore)))).await? {
            Done::Nothing => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Takes the hash and the uid of a row, and answers whether the next one is wanted.
pub type VisitRow<'a> = dyn FnMut(Option<u128>, Uid<'_>) -> Result<bool, ReadError> + 'a;

/// The uid of a row, which is encrypted.
#[derive(Debug)]
pub struct Uid<'a> {
    digester: &'a Digester,
    key: u128,
    concealed: &'a [u8],
}

impl Uid<'_> {
    /// The key of its row.
    pub fn key(&self) -> u128 {
        self.key
    }

    /// In clear.
    ///
    /// # Errors
    /// It was changed.
    pub fn reveal(&self) -> Result<String, ReadError> {
        self.digester.reveal(self.key, self.concealed)
    }
}

/// Who may bring up the shadow of a type.
#[derive(Debug)]
pub struct ShadowHold {
    db: Db,
    key: TypeKey,
    _turn: OwnedMutexGuard<()>,
}

impl ShadowHold {
    /// Of which type.
    pub fn key(&self) -> &TypeKey {
        &self.key
    }

    fn stored(&self) -> Result<Shadow, CommitError> {
        let missing = || CommitError::Storage(format!("the shadow of {} is not there", self.key));
        self.db.shadow(&self.key).map_err(unread)?.ok_or_else(missing)
    }

    /// Makes sure that the type has a shadow of this form. Where the form changed, all objects differ once.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn open(&self, form: Form) -> Result<Shadow, CommitError> {
        self.db.shadow_chore(ShadowChore::Open { key: self.key.clone(), form }).await?;
        self.stored()
    }

    /// Brings the shadow up with the journal, and is told the keys of what was said since, whatever comes of the rest.
    ///
    /// # Errors
    /// A damaged entry, or the storage engine failed.
    pub async fn bring_up(&self, said_of: impl Fn(u128) + Send) -> Result<Shadow, CommitError> {
        loop {
            let mut shadow = self.stored()?;
            if shadow.position >= self.db.last_sequence() {
                return Ok(shadow);
            }
            let erasures = shadow.erasures;
            let (db, key, from, behind_of) = (self.db.clone(), self.key.clone(), shadow.position, shadow.clone());
            let behind = spawn_blocking(move || db.behind(&key, &behind_of)).await;
            let Behind { said, to, is_all, .. } =
                behind.map_err(|error| CommitError::Storage(error.to_string()))?.map_err(unread)?;
            said.keys().for_each(|key| said_of(*key));
            // Entries of others need no writing down, unless they are much to look through again.
            if said.is_empty() && is_all && to - from < ROWS_AT_ONCE as u64 {
                shadow.position = to;
                return Ok(shadow);
            }
            self.apply((from, erasures), to, said).await?;
        }
    }

    /// Brings the shadow up with the journal, and writes its position down, so that no entry is kept for it.
    ///
    /// # Errors
    /// As `bring_up`.
    pub async fn settle(&self) -> Result<Shadow, CommitError> {
        let shadow = self.bring_up(|_| {}).await?;
        let from = self.stored()?.position;
        if from < shadow.position {
            self.apply((from, shadow.erasures), shadow.position, BTreeMap::new()).await?;
        }
        Ok(shadow)
    }

    async fn apply(
        &self,
        (from, erasures): (u64, u64),
        to: u64,
        said: BTreeMap<u128, Said>,
    ) -> Result<(), CommitError> {
        let key = self.key.clone();
        self.db.shadow_chore(ShadowChore::Apply { key, from, erasures, to, said }).await
    }

    /// Forgets what the journal said of objects, so that the next pass tells it again: what they are, or that they are gone.
    ///
    /// # Errors
    /// As `bring_up`.
    pub async fn doubt(&self, uids: impl Iterator<Item = &str>) -> Result<(), CommitError> {
        let uids: Vec<&str> = uids.collect();
        loop {
            let shadow = self.settle().await?;
            let digester = shadow.digester();
            let unknown = |uid: &&str| {
                let key = digester.key(uid);
                (key, Said::Is(None, digester.conceal(key, uid)))
            };
            self.apply((shadow.position, shadow.erasures), shadow.position, uids.iter().map(unknown).collect()).await?;
            // It is not written if something was erased meanwhile.
            if self.stored()?.erasures == shadow.erasures {
                return Ok(());
            }
        }
    }

    /// Notes that a pass came to its end, which was begun with a token of this generation.
    ///
    /// # Errors
    /// The storage engine failed.
    pub async fn complete(&self, generation: Option<u64>, at: UnixMillis) -> Result<(), CommitError> {
        self.db.shadow_chore(ShadowChore::Complete { key: self.key.clone(), generation, at }).await
    }
}

fn unread(error: ReadError) -> CommitError {
    CommitError::Storage(error.to_string())
}

impl Behind {
    fn take(&mut self, body: &Body, digester: &mut Digester) {
        let Some(delta) = body.delta() else { return };
        let (object, previous) = match &delta.change {
            Change::Create(object) => (object, None),
            Change::Update { object, previous_uid } | Change::CreateOrUpdate { object, previous_uid } => {
                (object, previous_uid.as_deref())
            }
            Change::Delete { uid, .. } => {
                self.said.insert(digester.key(uid), Said::Gone);
                return;
            }
        };
        if let Some(previous) = previous.filter(|previous| *previous != object.uid) {
            self.said.insert(digester.key(previous), Said::Gone);
        }
        let key = digester.key(&object.uid);
        self.uids_bytes += object.uid.len();
        let (hash, uid) = (digester.hash(object), digester.conceal(key, &object.uid));
        self.said.insert(key, Said::Is(hash, uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_hash_and_a_uid_that_only_the_shadow_can_read() {
        let shadow = Shadow::new(1, Form::default());
        let digester = shadow.digester();
        let key = digester.key("jane");
        let concealed = digester.conceal(key, "jane");
        assert!(!concealed.windows(4).any(|part| part == b"jane"));
        for hash in [None, Some(0), Some(u128::MAX - 5)] {
            let bytes = encode(hash, &concealed);
            let (decoded, uid) = decode(&bytes).unwrap();
            assert_eq!((decoded, digester.reveal(key, uid).unwrap()), (hash, "jane".to_owned()));
        }
        assert!(decode(&[0; UID_AT - 1]).is_none());
        assert!(digester.reveal(key ^ 1, &concealed).is_err());
        let other = Shadow::new(1, Form::default()).digester();
        assert_ne!(other.key("jane"), key, "each shadow has secrets of its own");
        assert!(other.reveal(key, &concealed).is_err());
    }
}
