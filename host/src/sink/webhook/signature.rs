//! Signatures as in [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body, so that a receiver knows
//! who sent a request, and that it is not one of long ago.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The length of a key, in bytes, as the standard has it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What secrets begin with, or not.
const PREFIX: &[u8] = b"whsec_";

/// What is signed with.
pub(super) struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Reads a secret: the key in base64, with the standard's prefix or without. An error says nothing of it.
    pub(super) fn parse(secret: &Secret) -> Result<Self, String> {
        let text = secret.expose_secret();
        let text = text.strip_prefix(PREFIX).unwrap_or(text);
        let key = Zeroizing::new(BASE64_STANDARD.decode(text).unwrap_or_default());
        match KEY_BYTES.contains(&key.len()) {
            true => Ok(Self(key)),
            false => Err(format!(
                "has no key of {} to {} bytes in base64: make one with `openssl rand -base64 32`",
                KEY_BYTES.start(),
                KEY_BYTES.end()
            )),
        }
    }

    /// The value of `webhook-signature`; `seconds` is that of `webhook-timestamp`, and `body` what is sent.
    pub(super) fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<Key, String> {
        Key::parse(&Secret::from(text.as_bytes().to_vec()))
    }

    /// The example of the standard's reference libraries.
    #[test]
    fn signs_as_the_standard_does() {
        for text in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let signature =
                key(text).unwrap().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
            assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_told() {
        for text in ["hunter2", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "aHVudGVyMg==", &"QUJD".repeat(22)] {
            let problem = key(text).map(|_| ()).unwrap_err();
            assert!(!problem.contains(text) && problem.contains("24 to 64 bytes"), "{problem}");
        }
    }
}
