//! Who may ask over HTTP: access tokens by name, each with a role, kept as hashes in a file of the data directory. The first one is
//! made here, and lies beside it for whoever may read the data. Shows a token once, when it is made; may not keep one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::access::Role;
use tidewaiter_core::name::AccessName;
use tidewaiter_core::state::Actor;
use tidewaiter_core::text::hex;
use tidewaiter_core::time::UnixMillis;
use utoipa::ToSchema;

use crate::clock::Clock;
use crate::files;

/// The hashes.
const ACCESS_FILE: &str = "access.json";
/// The first token, as text.
const FIRST_FILE: &str = "http-token";
/// What the first one is called.
const FIRST_NAME: &str = "first";
/// So that scanners of source code know one that was left there.
const PREFIX: &str = "tw_";
const TOKEN_BYTES: usize = 32;
/// Shorter ones, written by hand, are refused.
const TOKEN_CHARS_MIN: usize = 32;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Those that there may be.
const TOKENS_MAX: usize = 1000;

/// The tokens that there are. Clones are the same ones.
#[derive(Clone)]
pub struct AccessTokens {
    tokens: Arc<Mutex<BTreeMap<AccessName, Stored>>>,
    path: Arc<Path>,
    clock: Clock,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Of the token, in hexadecimal.
    sha256: String,
    role: Role,
    created: UnixMillis,
    #[serde(default)]
    expires: Option<UnixMillis>,
}

/// An access token, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AccessView {
    /// What it is called.
    pub name: AccessName,
    /// What may be done with it.
    pub role: Role,
    /// When it was made.
    pub created: UnixMillis,
    /// When it ends to be one; none: when it is revoked.
    pub expires: Option<UnixMillis>,
    /// It has ended to be one.
    pub expired: bool,
}

/// An access token that was just made. It is not shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NewAccess {
    /// What it is.
    #[serde(flatten)]
    pub view: AccessView,
    /// The token itself: `tw_` and 64 hexadecimal digits.
    pub token: String,
}

/// Who asks: whoever an access token admits.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// What the token is called.
    pub name: AccessName,
    /// What may be done with it.
    pub role: Role,
    /// Which one it is: another one may be called so later.
    sha256: String,
}

/// Why access can't be given or taken.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There is one.
    #[error("there is an access token {0} already; revoke it first")]
    Exists(AccessName),
    /// There is none.
    #[error("there is no access token {0}")]
    Unknown(AccessName),
    /// It would never have been one.
    #[error("an access token that expires at {0}, which is past")]
    Past(UnixMillis),
    /// There are enough.
    #[error("there are {TOKENS_MAX} access tokens; revoke some")]
    TooMany,
    /// The file system.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}

impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessTokens").field("path", &self.path).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NewAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccess").field("view", &self.view).finish_non_exhaustive()
    }
}

impl AccessTokens {
    /// The tokens of a data directory, which is ours.
    ///
    /// # Errors
    /// The file can't be read, or isn't one of tokens.
    pub fn open(data: &Path, clock: Clock) -> Result<Self, AccessError> {
        let path = data.join(ACCESS_FILE);
        let named = |source| AccessError::File { path: path.clone(), source };
        let tokens = match files::text(&path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            text => serde_json::from_str(&text.map_err(named)?).map_err(|error| named(io::Error::other(error)))?,
        };
        Ok(Self { tokens: Arc::new(Mutex::new(tokens)), path: path.into(), clock })
    }

    /// Makes the first token, with the role `admin`, where there is no token yet: what the file `http-token` has, or else a new one, which is
    /// written there.
    ///
    /// # Errors
    /// The file can't be written, or what it has is no secret.
    pub fn first(&self) -> Result<(), AccessError> {
        let mut tokens = self.tokens();
        if !tokens.is_empty() {
            return Ok(());
        }
        let path = self.path.with_file_name(FIRST_FILE);
        let token = first(&path).map_err(|source| AccessError::File { path, source })?;
        let Ok(name) = FIRST_NAME.parse() else { return Ok(()) };
        let stored = Stored { sha256: hash(&token), role: Role::Admin, created: self.clock.now(), expires: None };
        self.store(&mut tokens, |tokens| drop(tokens.insert(name, stored)))
    }

    /// Whose token it is, if it is one by now.
    pub fn admits(&self, token: &str) -> Option<Admitted> {
        // Who tries others learns nothing from the time that this takes: they don't know what hashes begin like one of ours.
        let (hash, now) = (hash(token), self.clock.now());
        let tokens = self.tokens();
        let (name, found) = tokens.iter().find(|(_, stored)| stored.sha256 == hash)?;
        (!found.has_ended(now)).then(|| Admitted { name: name.clone(), role: found.role, sha256: hash })
    }

    /// All tokens, by name.
    pub fn list(&self) -> Vec<AccessView> {
        let now = self.clock.now();
        self.tokens().iter().map(|(name, stored)| stored.view(name, now)).collect()
    }

    /// Makes a token.
    ///
    /// # Errors
    /// There is one of that name, it would be none, or the file can't be written.
    pub fn add(&self, name: &AccessName, role: Role, expires: Option<UnixMillis>) -> Result<NewAccess, AccessError> {
        let (now, mut tokens) = (self.clock.now(), self.tokens());
        match expires {
            _ if tokens.contains_key(name) => return Err(AccessError::Exists(name.clone())),
            _ if tokens.len() >= TOKENS_MAX => return Err(AccessError::TooMany),
            Some(expires) if expires <= now => return Err(AccessError::Past(expires)),
            _ => {}
        }
        let token = random().map_err(|source| AccessError::File { path: self.path.to_path_buf(), source })?;
        let stored = Stored { sha256: hash(&token), role, created: now, expires };
        let view = stored.view(name, now);
        self.store(&mut tokens, |tokens| drop(tokens.insert(name.clone(), stored)))?;
        Ok(NewAccess { view, token })
    }

    /// Has a token be none any more, at once; the file of the first one goes with it, or else the next start would make it the first one again.
    ///
    /// # Errors
    /// There is none of that name, or the file can't be written or removed.
    pub fn revoke(&self, name: &AccessName) -> Result<(), AccessError> {
        let mut tokens = self.tokens();
        let stored = tokens.get(name).ok_or_else(|| AccessError::Unknown(name.clone()))?;
        let path = self.path.with_file_name(FIRST_FILE);
        let is_first = |text: String| hash(text.trim()) == stored.sha256;
        if files::text(&path, FILE_BYTES_MAX).is_ok_and(is_first) {
            std::fs::remove_file(&path).map_err(|source| AccessError::File { path, source })?;
        }
        self.store(&mut tokens, |tokens| drop(tokens.remove(name)))
    }

    /// Whether what admitted somebody is an access token still.
    pub fn is_current(&self, who: &Admitted) -> bool {
        let now = self.clock.now();
        self.tokens().get(&who.name).is_some_and(|stored| stored.sha256 == who.sha256 && !stored.has_ended(now))
    }

    /// Changes them once that is durable.
    fn store(
        &self,
        tokens: &mut BTreeMap<AccessName, Stored>,
        change: impl FnOnce(&mut BTreeMap<AccessName, Stored>),
    ) -> Result<(), AccessError> {
        let mut changed = tokens.clone();
        change(&mut changed);
        let named = |source| AccessError::File { path: self.path.to_path_buf(), source };
        let text = serde_json::to_string_pretty(&changed).map_err(|error| named(io::Error::other(error)))?;
        files::put(&self.path, text.as_bytes(), 0o600).map_err(named)?;
        *tokens = changed;
        Ok(())
    }

    fn tokens(&self) -> MutexGuard<'_, BTreeMap<AccessName, Stored>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// As the audit and the journal have it.
    pub fn actor(&self) -> Actor {
        Actor::Access { name: self.name.clone(), role: self.role }
    }
}

impl Stored {
    fn has_ended(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn view(&self, name: &AccessName, now: UnixMillis) -> AccessView {
        let Self { role, created, expires, .. } = *self;
        AccessView { name: name.clone(), role, created, expires, expired: self.has_ended(now) }
    }
}

/// What the file has, or else a new one.
fn first(path: &Path) -> io::Result<String> {
    let token = random()?;
    match files::create(path, format!("{token}\n").as_bytes(), 0o600) {
        Ok(()) => Ok(token),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mode = files::open(path)?.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("mode {mode:o} lets others read it; `chmod 600` it")));
    }
    let text = files::text(path, FILE_BYTES_MAX)?;
    match text.trim().len() >= TOKEN_CHARS_MIN {
        true => Ok(text.trim().to_owned()),
        false => Err(io::Error::other(format!(
            "fewer than {TOKEN_CHARS_MIN} characters; remove the file, and the next start makes a good one"
        ))),
    }
}

fn random() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(format!("{PREFIX}{}", hex(&bytes)))
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn named(name: &str) -> AccessName {
        name.parse().unwrap()
    }

    #[test]
    fn the_first_token_is_made_once_and_refused_where_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FIRST_FILE);
        let open = || AccessTokens::open(folder.path(), Clock::start()).unwrap();
        open().first().unwrap();
        let token = fs::read_to_string(&path).unwrap();
        assert_eq!((token.trim().len(), fs::metadata(&path).unwrap().mode() & 0o777), (67, 0o600));
        let admitted = |token: &str| open().admits(token).map(|who| (who.name, who.role));
        let is_first = |token: &str| admitted(token) == Some((named(FIRST_NAME), Role::Admin));
        assert!(is_first(token.trim()) && !is_first("") && !is_first(&token));
        let kept = fs::read_to_string(folder.path().join(ACCESS_FILE)).unwrap();
        assert!(!kept.contains(token.trim()) && kept.contains(&hash(token.trim())), "{kept}");
        // Who has read it removes it, and it is one still.
        fs::remove_file(&path).unwrap();
        open().first().unwrap();
        assert!(!path.exists() && is_first(token.trim()));
        // What is revoked is no token after a start, either.
        fs::write(&path, &token).unwrap();
        open().revoke(&named(FIRST_NAME)).unwrap();
        open().first().unwrap();
        assert!(path.exists() && !is_first(token.trim()) && is_first(fs::read_to_string(&path).unwrap().trim()));

        let other = tempfile::tempdir().unwrap();
        let path = other.path().join(FIRST_FILE);
        fs::write(&path, "x".repeat(40)).unwrap();
        for (mode, text, problem) in [(0o640, "x".repeat(40), "640"), (0o600, "short".to_owned(), "characters")] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = AccessTokens::open(other.path(), Clock::start()).unwrap().first().unwrap_err().to_string();
            assert!(error.contains("http-token") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_token_is_one_until_it_expires_or_is_revoked_and_a_restart_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let access = AccessTokens::open(folder.path(), clock).unwrap();
        let (ops, soon) = (named("ops"), UnixMillis(clock.now().0 + 60_000));
        assert!(matches!(access.add(&ops, Role::Operate, Some(UnixMillis(1))), Err(AccessError::Past(_))));
        let NewAccess { view, token } = access.add(&ops, Role::Operate, Some(soon)).unwrap();
        assert!(!view.expired && format!("{:?}", NewAccess { view, token: token.clone() }).find(&token).is_none());
        assert!(matches!(access.add(&ops, Role::Read, None), Err(AccessError::Exists(_))));
        let reopened = || AccessTokens::open(folder.path(), clock).unwrap();
        let who = reopened().admits(&token).unwrap();
        assert_eq!((&who.name, who.role), (&ops, Role::Operate));
        assert!(reopened().is_current(&who));

        // As if it were later.
        let path = folder.path().join(ACCESS_FILE);
        let later = fs::read_to_string(&path).unwrap().replace(&soon.to_string(), "2026-01-01T00:00:00Z");
        fs::write(&path, later).unwrap();
        assert!(reopened().admits(&token).is_none() && reopened().list()[0].expired);

        access.revoke(&ops).unwrap();
        assert!(access.admits(&token).is_none() && reopened().list().is_empty() && !access.is_current(&who));
        access.add(&ops, Role::Operate, None).unwrap();
        assert!(!access.is_current(&who), "another one is called so");
        access.revoke(&ops).unwrap();
        assert!(matches!(access.revoke(&ops), Err(AccessError::Unknown(_))));
    }
}
