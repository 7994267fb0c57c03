//! What slapd's cookies say: `rid=000,sid=001,csn=A;B`. They name the server that gave them, and the last change of each server that
//! wrote. Only what is read here is relied on; other servers' cookies stay closed.

use std::collections::BTreeMap;

/// The changes up to which everything was told, by the server that made them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cookie {
    /// The server that gave it.
    pub(crate) server: Option<String>,
    /// The last change of each.
    pub(crate) changes: BTreeMap<String, String>,
}

impl Cookie {
    /// None: it is none of slapd's.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut this = Self::default();
        for part in text.split(',') {
            match part.split_once('=')? {
                ("sid", server) => this.server = Some(server.to_owned()),
                ("csn", changes) => {
                    for change in changes.split(';') {
                        this.changes.insert(writer(change)?.to_owned(), change.to_owned());
                    }
                }
                ("rid" | "delcsn", _) => {}
                _ => return None,
            }
        }
        Some(this)
    }

    /// Moves on to another one, by each writer.
    pub(crate) fn advance(&mut self, to: Self) {
        self.changes.extend(to.changes);
    }

    /// Whether everything that it names is there by now.
    pub(crate) fn is_within(&self, now: &Self) -> bool {
        now.before(self.changes.values().map(String::as_str)).is_empty()
    }

    /// Which of these changes are still to come after it.
    pub(crate) fn before<'c>(&self, changes: impl IntoIterator<Item = &'c str>) -> Vec<&'c str> {
        let is_to_come = |change: &&str| {
            let own = writer(change).and_then(|writer| self.changes.get(writer));
            own.is_none_or(|own| own.as_str() < *change)
        };
        changes.into_iter().filter(is_to_come).collect()
    }
}

impl std::fmt::Display for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes: Vec<&str> = self.changes.values().map(String::as_str).collect();
        f.write_str("rid=000")?;
        self.server.iter().try_for_each(|server| write!(f, ",sid={server}"))?;
        if changes.is_empty() { Ok(()) } else { write!(f, ",csn={}", changes.join(";")) }
    }
}

/// Who made a change: `20261126100211.738899Z#000000#001#000000`.
fn writer(change: &str) -> Option<&str> {
    let mut parts = change.split('#');
    let time = parts.next()?;
    let is_time = time.len() == 22 && time.ends_with('Z') && time.starts_with(|first: char| first.is_ascii_digit());
    let (_count, writer, _change) = (parts.next()?, parts.next()?, parts.next()?);
    (is_time && parts.next().is_none()).then_some(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "20261126100211.738899Z#000000#001#000000";
    const TWO: &str = "20261126100211.738899Z#000000#002#000000";
    const LATER: &str = "20261126100212.000000Z#000000#001#000000";

    #[test]
    fn cookies_are_written_as_they_are_read() {
        for text in [format!("rid=000,sid=001,csn={ONE};{TWO}"), format!("rid=000,csn={ONE}"), "rid=000".to_owned()] {
            assert_eq!(Cookie::parse(&text).unwrap().to_string(), text);
        }
        for text in ["", "rubbish", "rid=000,csn=1", "rid=000,csn=", "localhost:389#cn=x#7"] {
            assert_eq!(Cookie::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_writer_has_an_order_of_its_own() {
        let of = |changes: &[&str]| Cookie::parse(&format!("rid=000,sid=001,csn={}", changes.join(";"))).unwrap();
        let mut cookie = of(&[ONE, TWO]);
        assert!(of(&[ONE]).is_within(&cookie) && !of(&[LATER]).is_within(&cookie) && !cookie.is_within(&of(&[LATER])));
        assert!(cookie.before([ONE, TWO]).is_empty() && of(&[LATER, TWO]).before([ONE]).is_empty());
        assert_eq!(cookie.before([LATER, TWO]), [LATER]);
        assert_eq!(of(&[ONE]).before([ONE, TWO]), [TWO], "of another writer nothing is known");
        cookie.advance(of(&[LATER]));
        assert_eq!(cookie, of(&[LATER, TWO]));
    }
}
