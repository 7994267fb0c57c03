//! Where entries are: distinguished names of RFC 4514, compared without regard to case, blanks around their parts, and how characters
//! are escaped. That is as exact as it can be without each attribute's own rule, and only decides whether an entry that isn't found any
//! more was among those of a class.

use crate::settings::Scope;

/// A name, its parts from the entry up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dn(Vec<Vec<u8>>);

impl Dn {
    /// None: it is no name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Vec::new()));
        }
        let mut parts = vec![Vec::new()];
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let part = parts.last_mut()?;
            match byte {
                b',' | b';' => parts.push(Vec::new()),
                b'\\' => part.extend(escaped(&mut bytes)?),
                // Blanks around the sign are no part of either side.
                b'=' if !part.contains(&b'=') => {
                    trim_end(part);
                    part.push(byte);
                }
                b' ' if part.is_empty() || part.ends_with(b"=") => {}
                _ => part.push(byte.to_ascii_lowercase()),
            }
        }
        parts.iter_mut().for_each(trim_end);
        parts
            .iter()
            .all(|part| part.iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0))
            .then_some(Self(parts))
    }

    /// A name's first part, and the rest, as they are written.
    pub(crate) fn split(text: &str) -> Option<(&str, &str)> {
        let mut is_escaped = false;
        let at = text.bytes().position(|byte| {
            let ends = byte == b',' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        })?;
        Some((&text[..at], &text[at + 1..]))
    }

    /// Whether it is among what is asked for with this base and scope.
    pub(crate) fn is_within(&self, base: &Self, scope: Scope) -> bool {
        let above = self.0.len().checked_sub(base.0.len());
        above.is_some_and(|above| {
            self.0[above..] == base.0
                && match scope {
                    Scope::Base => above == 0,
                    Scope::One => above == 1,
                    Scope::Subtree => true,
                }
        })
    }

    /// The attribute that an entry is named by among those beside it, in small letters; of several the first.
    pub(crate) fn naming(&self) -> Option<String> {
        let first = self.0.first()?.split(|byte| *byte == b'=').next()?;
        String::from_utf8(first.to_vec()).ok()
    }

    /// How many parts it has.
    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }
}

/// What stands behind a backslash: two hexadecimal digits, or the character itself.
fn escaped(bytes: &mut std::str::Bytes<'_>) -> Option<[u8; 1]> {
    let first = bytes.next()?;
    let Some(high) = char::from(first).to_digit(16) else { return Some([first]) };
    let low = char::from(bytes.next()?).to_digit(16)?;
    Some([u8::try_from(high * 16 + low).ok()?.to_ascii_lowercase()])
}

fn trim_end(part: &mut Vec<u8>) {
    part.truncate(part.trim_ascii_end().len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_however_they_are_written() {
        let dn = |text: &str| Dn::parse(text).unwrap();
        for (one, other) in [
            ("uid=Ann,ou=People,dc=x", "UID = ann , OU=people,DC=X"),
            ("cn=a\\,b,dc=x", "cn=a\\2cb,dc=x"),
            ("cn=a\\,b,dc=x", "cn=A\\2CB,dc=x"),
            ("", " "),
        ] {
            assert_eq!(dn(one), dn(other));
        }
        assert_ne!(dn("cn=a,dc=x"), dn("cn=a\\,dc=x"));
        for text in ["x", "cn=a,", "=x", "cn=a\\"] {
            assert_eq!(Dn::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_below_a_base_is_known() {
        let (base, scopes) = ("ou=people,dc=x", [Scope::Base, Scope::One, Scope::Subtree]);
        for (name, within) in [
            ("ou=people,dc=x", [true, false, true]),
            ("uid=a,OU=people, dc=x", [false, true, true]),
            ("uid=a,ou=b,ou=people,dc=x", [false, false, true]),
            ("uid=a,ou=morepeople,dc=x", [false; 3]),
            ("dc=x", [false; 3]),
        ] {
            let is = |scope| Dn::parse(name).unwrap().is_within(&Dn::parse(base).unwrap(), scope);
            assert_eq!(scopes.map(is), within, "{name}");
        }
    }
}
