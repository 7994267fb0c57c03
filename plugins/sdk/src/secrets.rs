//! Secrets that a connector must see itself, for instance a password in an LDAP bind. Logins over HTTP are put in by the host
//! and need none of this.

use crate::bindings::tidewaiter::connector::secrets::Refusal;
use crate::{Error, host};

/// The bytes of a secret. Ask for `Capability::Reveal(name)` in [`Info`](crate::Info); every call is audited.
pub fn reveal(name: &str) -> Result<Vec<u8>, Error> {
    host::reveal(name).map_err(|refusal| match refusal {
        Refusal::Unknown => Error::configuration(format!("no secret {name:?} is configured")),
        Refusal::NotGranted => Error::permission_denied(format!(
            "the secret {name:?} is not granted: this connection needs reveal = [{name:?}]"
        )),
    })
}

/// The secret as text.
pub fn reveal_text(name: &str) -> Result<String, Error> {
    String::from_utf8(reveal(name)?).map_err(|_| Error::invalid_credential(format!("the secret {name:?} is not UTF-8")))
}
