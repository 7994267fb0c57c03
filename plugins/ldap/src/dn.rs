//! Where entries are: distinguished names of RFC 4514, compared without regard to case, blanks, how characters are escaped, and the long
//! names of the usual attributes. That is as exact as it can be without each attribute's own rule, and only decides whether an entry that
//! isn't found any more was among those of a class; where the rules of an attribute could make two names the same, they may be.

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
        parts.iter_mut().for_each(|part| {
            trim_end(part);
            *part = folded(part);
        });
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

    /// Whether it may be: unless a part surely differs.
    pub(crate) fn may_be_within(&self, base: &Self, scope: Scope) -> bool {
        let is_plain =
            |part: &[u8]| part.is_ascii() && !part.contains(&b'+') && part.first().is_some_and(u8::is_ascii_alphabetic);
        let above = self.0.len().checked_sub(base.0.len());
        above.is_some_and(|above| {
            let mut pairs = self.0[above..].iter().zip(&base.0);
            let is_in_scope = match scope {
                Scope::Base => above == 0,
                Scope::One => above == 1,
                Scope::Subtree => true,
            };
            is_in_scope && pairs.all(|(one, other)| one == other || !is_plain(one) || !is_plain(other))
        })
    }

    /// The attributes that an entry is named by among those beside it, in small letters.
    pub(crate) fn naming(&self) -> Vec<String> {
        let pairs = self.0.first().into_iter().flat_map(|first| first.split(|byte| *byte == b'+'));
        let names = pairs.filter_map(|pair| pair.split(|byte| *byte == b'=').next());
        names.map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect()
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

/// The long names of attributes that entries are usually named by: RFC 4519.
const LONG: [(&str, &str); 8] = [
    ("commonname", "cn"),
    ("countryname", "c"),
    ("domaincomponent", "dc"),
    ("localityname", "l"),
    ("organizationname", "o"),
    ("organizationalunitname", "ou"),
    ("surname", "sn"),
    ("userid", "uid"),
];

/// A part with its attribute's short name, in small letters, and with single blanks.
fn folded(part: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(part).to_lowercase();
    let Some((name, value)) = text.split_once('=') else { return part.to_vec() };
    let name = LONG.iter().find(|(long, _)| *long == name).map_or(name, |(_, short)| short);
    let value: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
    format!("{name}={}", value.join(" ")).into_bytes()
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
            ("ou=my  Team,o=x", "organizationalUnitName=my team,organizationName=x"),
            ("ou=Österreich,dc=x", "ou=österreich,dc=x"),
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
    fn what_differs_only_by_our_rules_may_be_the_same() {
        let may =
            |name: &str, base: &str| Dn::parse(name).unwrap().may_be_within(&Dn::parse(base).unwrap(), Scope::Subtree);
        assert!(may("uid=a,ou=ｐeople,dc=x", "ou=people,dc=x") && may("uid=a,2.5.4.11=people,dc=x", "ou=people,dc=x"));
        assert!(may("uid=a,ou=b+cn=c,dc=x", "cn=c+ou=b,dc=x"));
        assert!(!may("uid=a,ou=others,dc=x", "ou=people,dc=x") && !may("dc=x", "ou=people,dc=x"));
        assert_eq!(Dn::parse("cn=M+UID=m1,dc=x").unwrap().naming(), ["cn", "uid"]);
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
