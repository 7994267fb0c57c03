//! Changes by a numbered log: 389's retro changelog, and its relatives with `cn=changelog`. It sees deletions.
//!
//! **What is exact, and why.** Every change has a number, one more than that of the change before. Entries are read by their numbers,
//! and each number has to be there before a later one is told: one that is missing is waited for, because its write may not have
//! ended. A position names a number and what its entry was given when it was made. The entry must still be there, and be the same one:
//! a log is trimmed from its beginning, so as long as it is there, everything after it is.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use tidewaiter_connector::{Changes, Error, SyncOptions, SyncToken, warn};

use crate::client::{Client, Entry, Search};
use crate::dn::Dn;
use crate::filter::Filter;
use crate::objects::{self, page};
use crate::server::{Server, identity};
use crate::settings::Scope;
use crate::source::Source;
use crate::token::{Position, Tokens, bad};
use crate::touched::{Noted, Touched, What, base_name};

const NUMBER: &str = "changeNumber";
/// A write that has its number and isn't there by then was none.
const MISSING_MAX: Duration = Duration::from_secs(10);
const LOOKED_EVERY: Duration = Duration::from_millis(50);

/// A numbered log.
#[derive(Debug)]
pub(crate) struct Log {
    base: String,
    /// What it was given when it was made.
    pub(crate) id: String,
}

/// A class whose changes are in a numbered log.
pub(crate) struct Changelog {
    pub(crate) log: Log,
    pub(crate) tokens: Tokens,
}

/// Entries of a log by their numbers.
type Entries = BTreeMap<u64, Entry>;

impl Log {
    pub(crate) fn of(client: &mut Client, server: &Server) -> Result<Self, Error> {
        let base = server.says("changeLog").map(str::to_owned).ok_or_else(|| {
            Error::configuration(
                "the server names no log of changes in its root entry (389: the plugin Retro Changelog)",
            )
        })?;
        let id = identity(client, &base)?.ok_or_else(|| {
            Error::permission_denied(format!("this login may not see {base:?}, the server's log of changes"))
        })?;
        Ok(Self { base, id })
    }

    /// The first and the last number.
    fn bounds(client: &mut Client) -> Result<(u64, u64), Error> {
        let server = Server::of(client)?;
        let [first, last] = ["firstChangeNumber", "lastChangeNumber"].map(|name| server.number(name).unwrap_or(0));
        Ok((first, last))
    }

    /// Entries with numbers from one to another.
    fn entries(&self, client: &mut Client, first: u64, last: u64, attributes: &[&str]) -> Result<Entries, Error> {
        let number = |number: u64| number.to_string();
        let search = Search {
            base: self.base.clone(),
            scope: Scope::One,
            filter: Filter::at_least(NUMBER, number(first)).and(Filter::at_most(NUMBER, number(last))),
            attributes: [NUMBER].iter().chain(attributes).map(|name| (*name).to_owned()).collect(),
        };
        let mut entries = Entries::new();
        client.search_paged(&search, ENTRIES_AT_A_TIME, &mut |entry| {
            let number = entry.text(NUMBER).and_then(|number| number.parse().ok());
            entries.insert(number.ok_or_else(|| Error::other("an entry of the log has no number"))?, entry);
            Ok(())
        })?;
        // Not every server compares numbers as such.
        entries.retain(|number, _| (first..=last).contains(number));
        Ok(entries)
    }

    /// The same, once none is missing before the last of them that is there. What has not come by then never does.
    fn settled(&self, client: &mut Client, first: u64, last: u64, attributes: &[&str]) -> Result<Entries, Error> {
        let mut waited = Duration::ZERO;
        loop {
            let entries = self.entries(client, first, last, attributes)?;
            let there = entries.keys().next_back().map_or(0, |newest| newest + 1 - first);
            if u64::try_from(entries.len()).is_ok_and(|count| count == there) {
                return Ok(entries);
            }
            self.check_bounds(client, first)?;
            if waited >= MISSING_MAX {
                let missing: Vec<u64> = (first..first + there).filter(|number| !entries.contains_key(number)).collect();
                warn!("the log never got the changes {missing:?}, and has later ones: they are passed over");
                return Ok(entries);
            }
            thread::sleep(LOOKED_EVERY);
            waited += LOOKED_EVERY;
        }
    }

    /// Whether the log wasn't trimmed beyond a number.
    fn check_bounds(&self, client: &mut Client, number: u64) -> Result<(), Error> {
        let (first, _) = Self::bounds(client)?;
        if first > number { Err(trimmed()) } else { Ok(()) }
    }

    /// Whether the log still has everything after a number.
    pub(crate) fn check(&self, client: &mut Client, number: u64, given: Option<&str>) -> Result<(), Error> {
        let (first, last) = Self::bounds(client)?;
        if number > last {
            return Err(bad("is later than anything in the log: an older state of the server was put back"));
        }
        if number == 0 {
            return if first <= 1 { Ok(()) } else { Err(trimmed()) };
        }
        let entries = self.entries(client, number, number, &GIVEN)?;
        let Some(entry) = entries.get(&number) else { return Err(trimmed()) };
        match given {
            Some(given) if Some(given) != given_of(entry) => {
                Err(bad("is of another log, or of another state of it, in which that number was another change"))
            }
            _ => Ok(()),
        }
    }

    /// After every change that is there.
    fn latest(&self, client: &mut Client) -> Result<Position, Error> {
        let (_, last) = Self::bounds(client)?;
        // Those that were begun before are waited for.
        let first = last.saturating_sub(UNSETTLED_MAX).max(1);
        let entries = self.settled(client, first, last, &GIVEN)?;
        let newest = entries.last_key_value();
        if last > 0 && newest.is_none() {
            return Err(Error::permission_denied(format!(
                "of {:?}, the server's log of changes, this login sees no entry: it may not, or all were trimmed and a change is due",
                self.base
            )));
        }
        Ok(newest.map_or(Position::Change(0, None), |(number, entry)| {
            Position::Change(*number, given_of(entry).map(str::to_owned))
        }))
    }
}

/// What an entry is given when it is made.
const GIVEN: [&str; 2] = ["nsUniqueId", "entryUUID"];
/// So many changes at most are being made at a time.
const UNSETTLED_MAX: u64 = 200;
/// Asked for at a time; blocks are no larger.
const ENTRIES_AT_A_TIME: u32 = 1_000;

fn given_of(entry: &Entry) -> Option<&str> {
    GIVEN.iter().find_map(|name| entry.text(name))
}

fn trimmed() -> Error {
    bad("is older than what the log of changes still has: it was trimmed meanwhile")
}

impl Changelog {
    /// After every change that is there.
    pub(crate) fn latest(&self, source: &mut Source<'_>) -> Result<Position, Error> {
        self.log.latest(&mut source.client)
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        source: &mut Source<'_>,
        since: Option<Position>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        match since {
            Some(Position::Change(number, given)) => {
                self.log.check(&mut source.client, number, given.as_deref())?;
                self.blocks(source, number, options, changes)
            }
            Some(_) => Err(bad("has a position that is no number")),
            None => {
                // What changes meanwhile is told again by the log.
                let then = self.log.latest(&mut source.client)?;
                objects::all_as_changes(&mut source.client, &source.selection, options, changes)?;
                Ok(Some(self.tokens.write(&then)))
            }
        }
    }

    /// What the log tells of after a number, block by block.
    fn blocks(
        &self,
        source: &mut Source<'_>,
        mut number: u64,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let top = source.server.top(&source.selection.class.base).unwrap_or_default().to_owned();
        let target = target(&source.selection.class.uid);
        let attributes =
            ["targetDN", "changeType", "changes", "newRdn", "newSuperior", target.as_str(), GIVEN[0], GIVEN[1]];
        let (_, last) = Log::bounds(&mut source.client)?;
        let size = u64::from(page(options).min(ENTRIES_AT_A_TIME));
        let Source { client, selection, .. } = source;
        let (mut token, mut hole, log) = (None, None, &self.log);
        while number < last {
            let entries = log.settled(client, number + 1, last.min(number + size), &attributes)?;
            let Some((newest, entry)) = entries.last_key_value() else {
                let end = number + size;
                if end >= last {
                    // What isn't there yet is waited for by the next run.
                    break;
                }
                match hole.replace(end) {
                    // Looked at again, when all that was being written has ended.
                    None => thread::sleep(MISSING_MAX),
                    Some(_) => {
                        log.check_bounds(client, number + 1)?;
                        let first = number + 1;
                        warn!(
                            "the log never got the changes {first} to {end}, and has later ones: they are passed over"
                        );
                        number = end;
                    }
                }
                continue;
            };
            hole = None;
            let position = Position::Change(*newest, given_of(entry).map(str::to_owned));
            let mut touched = Touched::new(selection);
            for entry in entries.values() {
                match noted(entry, &target) {
                    Ok(noted) => touched.note(noted),
                    Err(error) if touched.may_be_within(entry.text("targetDN").unwrap_or_default()) => {
                        return Err(error);
                    }
                    // Of another tree.
                    Err(_) => {}
                }
            }
            touched.tell(client, &top, options, changes)?;
            number = *newest;
            let reached = self.tokens.write(&position);
            changes.checkpoint(reached.clone())?;
            token = Some(reached);
        }
        Ok(token)
    }
}

/// The attribute of an entry of the log with the uid of what was changed.
fn target(uid: &str) -> String {
    let name = if uid.eq_ignore_ascii_case("nsUniqueId") { "UniqueId" } else { uid };
    let (first, rest) = name.split_at(1);
    format!("target{}{rest}", first.to_ascii_uppercase())
}

fn noted(entry: &Entry, target: &str) -> Result<Noted, Error> {
    let Some(uid) = entry.text(target) else {
        return Err(Error::configuration(format!(
            "{:?} of the log has no {target:?}: 389's plugin Retro Changelog notes it with \
             `nsslapd-attribute: nsuniqueid:targetUniqueId` (or entryuuid:targetEntryUUID), and this login has to see it",
            entry.dn
        )));
    };
    let dn = entry.text("targetDN").unwrap_or_default().to_owned();
    let what = match entry.text("changeType").unwrap_or_default().to_ascii_lowercase().as_str() {
        "add" => What::Added,
        "modify" => What::Modified(changed(entry.values("changes"))),
        "modrdn" | "moddn" => What::Renamed(renamed(entry, &dn)),
        "delete" => What::Deleted,
        other => return Err(Error::other(format!("{:?} of the log is of the unknown kind {other:?}", entry.dn))),
    };
    Ok(Noted { uid: uid.to_owned(), dn, what })
}

/// What an entry of this name was renamed to.
fn renamed(entry: &Entry, dn: &str) -> String {
    let first = entry.text("newRdn").unwrap_or_default();
    let above = entry.text("newSuperior").or_else(|| Some(Dn::split(dn)?.1)).unwrap_or_default();
    format!("{first},{above}")
}

/// The attributes that a change of LDIF names.
fn changed(values: &[Vec<u8>]) -> std::collections::HashSet<String> {
    let text = values.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>().join("\n");
    let named = text.lines().filter_map(|line| {
        let (word, name) = line.split_once(": ")?;
        ["add", "delete", "replace", "increment"].contains(&word).then(|| base_name(name.trim()))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_their_attributes() {
        let ldif = b"replace: sn\nsn: delete: x\n-\ndelete: mail;lang-de\n-\nadd: Description\ndescription:: eA==\n-\n";
        let mut names: Vec<String> = changed(&[ldif.to_vec()]).into_iter().collect();
        names.sort();
        assert_eq!(names, ["description", "mail", "sn"]);
    }

    #[test]
    fn renames_tell_where_an_entry_is_now() {
        let entry = |pairs: &[(&str, &str)]| Entry {
            attributes: pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), vec![value.as_bytes().to_vec()]))
                .collect(),
            ..Entry::default()
        };
        let within = entry(&[("newRdn", "uid=b")]);
        assert_eq!(renamed(&within, "uid=a\\,x,ou=people,dc=x"), "uid=b,ou=people,dc=x");
        let away = entry(&[("newRdn", "uid=b"), ("newSuperior", "ou=others,dc=x")]);
        assert_eq!(renamed(&away, "uid=a,ou=people,dc=x"), "uid=b,ou=others,dc=x");
    }

    #[test]
    fn the_log_names_its_targets_as_the_attribute_is_called() {
        assert_eq!(target("nsuniqueid"), "targetUniqueId");
        assert_eq!(target("entryUUID"), "targetEntryUUID");
    }
}
