//! Which files connectors may be: those whose hash is pinned, those that somebody signed who is listed, or any. Looks at bytes, and is asked before
//! anything is made of them, wherever they come from.

mod lock;
mod statement;

use std::path::PathBuf;

use minisign::PublicKey;
use tidewaiter_core::name::ConnectorName;
use tidewaiter_core::text::shown;

pub use self::lock::{Lock, LockError, Pin, Pulled};
pub(crate) use self::statement::STATEMENT_BYTES_MAX;
use self::statement::verified;
pub use self::statement::{Signed, Statement};

/// The world that connectors implement, as statements name it.
pub const WORLD: &str = "tidewaiter:connector/connector@0.1.0";
/// More of what a statement says isn't shown.
const NAME_BYTES_MAX: usize = 100;

/// What is trusted, as the configuration has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectorTrust {
    /// How it is decided.
    pub mode: Mode,
    /// The lock file.
    pub lock: PathBuf,
}

/// How it is decided which files are trusted.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Those whose hash is in the lock file.
    Pinned,
    /// Those with a statement that one of these keys signed.
    Signed(Keys),
    /// All.
    Any,
}

/// Keys of minisign, in base64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keys {
    /// Those that count.
    pub trusted: Vec<Key>,
    /// Those that don't any more, whether they are among those or not.
    pub revoked: Vec<Key>,
}

/// A public key of minisign.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    key: PublicKey,
    text: String,
}

impl Key {
    /// Reads it, as `minisign -G` prints it: the second line of its file.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: String) -> Result<Self, String> {
        match PublicKey::from_base64(&text) {
            Ok(key) => Ok(Self { key, text }),
            Err(error) => Err(format!("{:?} is no public key of minisign: {error}", shown(&text, NAME_BYTES_MAX))),
        }
    }
}

/// A file that may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// Why, for people.
    pub why: String,
    /// What its version has to be; none: whatever it says.
    pub version: Option<String>,
}

/// A file that may not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Distrust {
    #[error("the connector is in quarantine by {lock}: {why}")]
    Quarantined { lock: String, why: String },
    #[error("the file {sha256} is denied by {lock}: {why}")]
    Denied { sha256: String, lock: String, why: String },
    #[error("the file {sha256} is not pinned in {lock}; if you trust it, `tidewaiter connectors pin {name}`")]
    NotPinned { sha256: String, lock: String, name: ConnectorName },
    #[error(
        "the file {sha256} was pinned before, and is not what {lock} has now; `tidewaiter connectors pin {name} --allow-downgrade` or `connectors rollback` goes back"
    )]
    Earlier { sha256: String, lock: String, name: ConnectorName },
    #[error("there is no signed statement: {name}.statement and {name}.statement.minisig belong beside {name}.wasm")]
    Unsigned { name: ConnectorName },
    #[error("its statement: {0}")]
    Statement(String),
    #[error("its statement is of {what} {said:?}, and not {expected:?}")]
    Other { what: &'static str, said: String, expected: String },
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The folder of connectors, where others may put files.
    Folder,
    /// Ours: it was run before.
    Kept,
}

impl ConnectorTrust {
    /// Whether a file of a connector may be run, by what the lock says now.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        name: &ConnectorName,
        sha256: &str,
        signed: Option<&Signed>,
        origin: Origin,
    ) -> Result<Trusted, Distrust> {
        let (lock, file) = (self.lock.display().to_string(), Lock::read(&self.lock)?);
        if let Some(why) = file.quarantined.get(name) {
            return Err(Distrust::Quarantined { lock, why: why.clone() });
        }
        let sha256 = sha256.to_owned();
        if let Some(why) = file.denied.get(&sha256) {
            return Err(Distrust::Denied { sha256, lock, why: why.clone() });
        }
        match &self.mode {
            Mode::Any => Ok(Trusted { why: "any file is trusted".to_owned(), version: None }),
            Mode::Pinned => {
                let name = name.clone();
                let Some(pin) = file.connectors.get(&name) else {
                    return Err(Distrust::NotPinned { sha256, lock, name });
                };
                match (pin.sha256 == sha256, pin.earlier.contains(&sha256), origin) {
                    (true, ..) => Ok(Trusted { why: "pinned".to_owned(), version: Some(pin.version.clone()) }),
                    (_, true, Origin::Kept) => Ok(Trusted { why: "pinned before".to_owned(), version: None }),
                    (_, true, Origin::Folder) => Err(Distrust::Earlier { sha256, lock, name }),
                    _ => Err(Distrust::NotPinned { sha256, lock, name }),
                }
            }
            Mode::Signed(keys) => {
                let signed = signed.ok_or_else(|| Distrust::Unsigned { name: name.clone() })?;
                let (statement, key) = verified(signed, keys).map_err(Distrust::Statement)?;
                for (what, said, expected) in [
                    ("the file", &*statement.sha256, &*sha256),
                    ("the connector", &statement.name, name.as_str()),
                    ("the world", &statement.world, WORLD),
                ] {
                    if said != expected {
                        let (said, expected) = (shown(said, NAME_BYTES_MAX), expected.to_owned());
                        return Err(Distrust::Other { what, said, expected });
                    }
                }
                Ok(Trusted { why: format!("signed by {}", key.text), version: Some(statement.version) })
            }
        }
    }
}

/// Whether a version comes before another one, by the rules of Semantic Versioning. Of two that are not the same and don't keep to them it can't be
/// said which is newer, and so neither is.
pub fn is_older(version: &str, than: &str) -> bool {
    match (semver::Version::parse(version), semver::Version::parse(than)) {
        (Ok(version), Ok(than)) => version < than,
        _ => version != than,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minisign::KeyPair;

    use super::*;

    fn name() -> ConnectorName {
        "csv".parse().unwrap()
    }

    fn trust(mode: Mode, lock: &Lock) -> (tempfile::TempDir, ConnectorTrust) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidewaiter.lock");
        lock.write(&path).unwrap();
        (folder, ConnectorTrust { mode, lock: path })
    }

    #[test]
    fn what_is_pinned_is_trusted_and_what_was_may_only_be_gone_back_to() {
        let pin = Pin { version: "2.0.0".into(), sha256: "new".into(), earlier: vec!["old".into()] };
        let lock = Lock { connectors: BTreeMap::from([(name(), pin)]), ..Lock::default() };
        let (_folder, trust) = trust(Mode::Pinned, &lock);
        let judge = |sha256, origin| trust.judge(&name(), sha256, None, origin);
        assert_eq!(judge("new", Origin::Folder).unwrap().version.as_deref(), Some("2.0.0"));
        assert!(judge("old", Origin::Kept).is_ok());
        assert!(matches!(judge("old", Origin::Folder), Err(Distrust::Earlier { .. })));
        assert!(matches!(judge("other", Origin::Folder), Err(Distrust::NotPinned { .. })));
        assert!(matches!(judge("other", Origin::Kept), Err(Distrust::NotPinned { .. })));
        let other = trust.judge(&"sql".parse().unwrap(), "new", None, Origin::Folder);
        assert!(matches!(other, Err(Distrust::NotPinned { .. })), "pinned under another name");
    }

    #[test]
    fn what_is_denied_or_in_quarantine_is_not_run_whoever_trusts_it() {
        let denied = BTreeMap::from([("bad".to_owned(), "a hole".to_owned())]);
        let quarantined = BTreeMap::from([("sql".parse().unwrap(), "looked at".to_owned())]);
        let (_folder, trust) = trust(Mode::Any, &Lock { denied, quarantined, ..Lock::default() });
        assert!(trust.judge(&name(), "good", None, Origin::Folder).is_ok());
        let denied = trust.judge(&name(), "bad", None, Origin::Kept).unwrap_err().to_string();
        assert!(denied.contains("a hole") && denied.contains("tidewaiter.lock"), "{denied}");
        let held = trust.judge(&"sql".parse().unwrap(), "good", None, Origin::Folder);
        assert!(matches!(held, Err(Distrust::Quarantined { .. })));
        std::fs::write(&trust.lock, "version = 1\n[denied]\nbad = 7\n").unwrap();
        let broken = trust.judge(&name(), "good", None, Origin::Folder).unwrap_err().to_string();
        assert!(broken.contains("line 3"), "a lock that can't be read trusts nobody: {broken}");
    }

    #[test]
    fn what_is_signed_is_trusted_for_exactly_what_was_signed() {
        let [ours, second, theirs] = std::array::from_fn(|_| KeyPair::generate_unencrypted_keypair().unwrap());
        let key = |pair: &KeyPair| Key::new(pair.pk.to_base64()).unwrap();
        let of = |name: &str, sha256: &str, world: &str, pair: &KeyPair| {
            let statement =
                Statement { name: name.into(), version: "1.0.0".into(), world: world.into(), sha256: sha256.into() };
            Signed::new(&statement, &pair.sk).unwrap()
        };
        let keys = Keys { trusted: vec![key(&ours), key(&second)], revoked: Vec::new() };
        let (_folder, trust_them) = trust(Mode::Signed(keys), &Lock::default());
        let judge = |signed: &Signed| trust_them.judge(&name(), "f", Some(signed), Origin::Folder);
        let good = of("csv", "f", WORLD, &second);
        assert_eq!(judge(&good).unwrap().version.as_deref(), Some("1.0.0"));
        let problem = |signed: &Signed| judge(signed).unwrap_err().to_string();
        assert!(problem(&of("csv", "f", WORLD, &theirs)).contains("no key that is listed"));
        assert!(problem(&of("sql", "f", WORLD, &ours)).contains("the connector \"sql\""));
        assert!(problem(&of("csv", "g", WORLD, &ours)).contains("the file \"g\""));
        assert!(problem(&of("csv", "f", "tidewaiter:connector/connector@9.0.0", &ours)).contains("the world"));
        let forged = Signed { statement: good.statement.replace("1.0.0", "9.0.0"), ..good.clone() };
        assert!(problem(&forged).contains("signature"), "{}", problem(&forged));
        let nonsense = Signed { signature: "x\ny\nz".into(), ..good.clone() };
        assert!(judge(&nonsense).is_err());
        assert!(matches!(trust_them.judge(&name(), "f", None, Origin::Folder), Err(Distrust::Unsigned { .. })));
        let keys = Keys { trusted: vec![key(&ours), key(&second)], revoked: vec![key(&second)] };
        let (_folder, revoked) = trust(Mode::Signed(keys), &Lock::default());
        let problem = revoked.judge(&name(), "f", Some(&good), Origin::Kept).unwrap_err().to_string();
        assert!(problem.contains("revoked"), "{problem}");
    }

    #[test]
    fn versions_are_ordered_as_semantic_versioning_says_and_others_are_not() {
        assert!(is_older("1.9.0", "1.10.0") && !is_older("1.10.0", "1.9.0") && !is_older("1.0.0", "1.0.0"));
        assert!(is_older("1.0.0-rc.1", "1.0.0") && is_older("b", "a") && is_older("a", "b") && !is_older("a", "a"));
    }
}
