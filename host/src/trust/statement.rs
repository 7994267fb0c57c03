//! What a publisher signs of a connector: not its bytes, but which file is which version of what. Signed with minisign, so that others can sign and
//! verify it, too.

use minisign::{PublicKey, SecretKey, SignatureBox};
use serde::{Deserialize, Serialize};

use super::{Key, Keys};

/// Larger ones are none, in bytes.
pub(crate) const STATEMENT_BYTES_MAX: u64 = 16 * 1024;

/// The statement, in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Of the connector.
    pub name: String,
    /// Of this file of it.
    pub version: String,
    /// What it implements, as in `tidewaiter:connector/connector@0.1.0`.
    pub world: String,
    /// Of the file, in hexadecimal.
    pub sha256: String,
}

/// A statement and its signature, as they lie beside a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `NAME.statement`.
    pub statement: String,
    /// `NAME.statement.minisig`.
    pub signature: String,
}

impl Signed {
    /// Signs a statement.
    ///
    /// # Errors
    /// In minisign's words.
    pub fn new(statement: &Statement, key: &SecretKey) -> Result<Self, String> {
        let text = toml::to_string(statement).map_err(|error| error.to_string())?;
        let trusted = format!("connector {} {}", statement.name, statement.version);
        let public = PublicKey::from_secret_key(key).map_err(|error| error.to_string())?;
        let signature = minisign::sign(Some(&public), key, text.as_bytes(), Some(&trusted), None);
        let signature = signature.map_err(|error| error.to_string())?.into_string();
        Ok(Self { statement: text, signature })
    }
}

/// The statement, and the key that signed it.
pub(super) fn verified<'a>(signed: &Signed, keys: &'a Keys) -> Result<(Statement, &'a Key), String> {
    let signature = SignatureBox::from_string(&signed.signature)
        .map_err(|error| format!("its signature is none of minisign: {error}"))?;
    let by = |key: &&Key| key.key.keynum() == signature.keynum();
    let verify = |key: &Key| {
        let bytes = std::io::Cursor::new(signed.statement.as_bytes());
        minisign::verify(&key.key, &signature, bytes, true, false, false)
    };
    if keys.revoked.iter().find(by).is_some() {
        return Err("its signature is by a key that is revoked".to_owned());
    }
    let Some(key) = keys.trusted.iter().find(by) else {
        return Err("its signature is by no key that is listed in connector-trust.keys".to_owned());
    };
    verify(key).map_err(|error| format!("its signature is not of what it says: {error}"))?;
    let statement = toml::from_str(&signed.statement).map_err(|error| error.to_string())?;
    Ok((statement, key))
}
