//! Changes by the log that slapd's overlay `accesslog` keeps. It sees deletions, however long ago, as far as the log reaches.
//!
//! **What is exact, and why.** Times in the log are no order: a change of another server comes with that server's, and a write that begins
//! earlier can end later. So the log is asked as slapd's own replicas ask it, by cookie, over its overlay `syncprov`: it gives the entries
//! after the cookie, and a cookie after each. What the log lost is told by `minCSN`, the changes up to which it was thrown away.

use std::collections::HashSet;

use tidewaiter_connector::{Changes, Error, SyncOptions, SyncToken};

use crate::client::{Client, Entry, Search};
use crate::cookie::Cookie;
use crate::filter::Filter;
use crate::objects::{self, page};
use crate::refresh::{Refreshed, Told, refresh};
use crate::settings::Scope;
use crate::source::Source;
use crate::token::{Position, Tokens, bad, unknown_changes};
use crate::touched::{Noted, Touched, What, base_name};
use crate::uid::Form;

const ATTRIBUTES: [&str; 5] = ["reqType", "reqDN", "reqNewDN", "reqEntryUUID", "reqMod"];

/// A class whose changes are in slapd's log.
pub(crate) struct Accesslog<'a> {
    log: &'a str,
    pub(crate) tokens: Tokens,
    /// After everything in the log.
    now: Cookie,
}

impl<'a> Accesslog<'a> {
    /// Asks the server who it is.
    pub(crate) fn of(
        source: &mut Source<'_>,
        log: &'a str,
        tokens: impl FnOnce(&Source<'_>, String) -> Tokens,
    ) -> Result<Self, Error> {
        if Form::of(&source.selection.class.uid) != Some(Form::Uuid) {
            return Err(source.selection.wrong("the access log names entries by entryUUID, and `uid` is another one"));
        }
        let search = Search { scope: Scope::Base, attributes: vec!["1.1".to_owned()], ..question(log) };
        let Refreshed { done, cookie, .. } = refresh(&mut source.client, &search, None, &mut |_| Ok(()))?;
        done.outcome.check(&format!("asking for a cookie of the log {log:?}"))?;
        let now = cookie.and_then(|cookie| Cookie::parse(std::str::from_utf8(&cookie).ok()?));
        let now = now.filter(|cookie| !cookie.changes.is_empty()).ok_or_else(|| {
            Error::configuration(format!(
                "the log {log:?} gives no cookie: its database needs `overlay syncprov`, and a first change"
            ))
        })?;
        let server = format!("{} {} {log}", source.tree()?, now.server.as_deref().unwrap_or_default());
        let this = Self { log, tokens: tokens(source, server), now };
        if this.lacks(&mut source.client, &this.now)?.len() == this.now.changes.len() {
            return Err(Error::permission_denied(format!(
                "this login sees none of the last changes in the log {log:?}"
            )));
        }
        Ok(this)
    }

    /// After everything in the log.
    pub(crate) fn latest(&self) -> Position {
        Position::Cookie(self.now.to_string())
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        source: &mut Source<'_>,
        since: Option<Position>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let Some(since) = since else {
            // What changes meanwhile is told again by the log.
            objects::all_as_changes(&mut source.client, &source.selection, options, changes)?;
            return Ok(Some(self.tokens.write(&self.latest())));
        };
        let Position::Cookie(text) = since else { return Err(bad("has a position that is no cookie")) };
        let cookie = Cookie::parse(&text).filter(|cookie| !cookie.changes.is_empty());
        let since = cookie.ok_or_else(|| bad("has a cookie that is none of slapd's"))?;
        if since.changes == self.now.changes {
            return Ok(None);
        }
        if !since.is_within(&self.now) {
            return Err(unknown_changes());
        }
        self.check(&mut source.client, &since)?;
        // Objects are read while the log is, over another connection.
        let mut other = Client::open(source.settings)?;
        let reached = self.entries(source, &mut other, since.clone(), options, changes)?;
        // What was thrown away while it was read may have been missed.
        self.check(&mut other, &since)?;
        Ok(Some(self.tokens.write(&Position::Cookie(reached.to_string()))))
    }

    /// Whether the log still has everything after a cookie: it is thrown away from its beginning, so it does if the last change of each
    /// writer is there, or was the last that was thrown away.
    fn check(&self, client: &mut Client, since: &Cookie) -> Result<(), Error> {
        match self.lacks(client, since)?.as_slice() {
            [] => Ok(()),
            _ => Err(bad("is older than what the access log still has: it was purged meanwhile, or made anew")),
        }
    }

    /// The changes that the log neither has nor knows for the last that it threw away.
    fn lacks(&self, client: &mut Client, cookie: &Cookie) -> Result<Vec<String>, Error> {
        let Some(log) = client.entry(self.log, &["minCSN"])? else {
            return Err(Error::permission_denied(format!("this login may not see {:?}, the log", self.log)));
        };
        let oldest = log.values("minCSN");
        let mut lacking = Vec::new();
        for change in cookie.changes.values() {
            if !oldest.iter().any(|oldest| oldest == change.as_bytes()) && !self.has(client, change)? {
                lacking.push(change.clone());
            }
        }
        Ok(lacking)
    }

    fn has(&self, client: &mut Client, change: &str) -> Result<bool, Error> {
        let filter = Filter::is("entryCSN", change);
        let search = Search { filter, scope: Scope::One, attributes: vec!["1.1".to_owned()], ..question(self.log) };
        let (has, outcome) = client.finds(&search)?;
        outcome.check(&search.what())?;
        Ok(has)
    }

    /// Reads the log after a cookie, and answers the last one.
    fn entries(
        &self,
        source: &mut Source<'_>,
        other: &mut Client,
        mut reached: Cookie,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Cookie, Error> {
        let top = source.server.top(&source.selection.class.base).unwrap_or_default().to_owned();
        let Source { client, selection, .. } = source;
        let (mut touched, mut count) = (Touched::new(selection), 0);
        let since = reached.to_string().into_bytes();
        let Refreshed { done, cookie, .. } = refresh(client, &question(self.log), Some(since), &mut |told| {
            let Told::Changed(entry, _, cookie) = told else { return Ok(()) };
            touched.note(noted(&entry)?);
            count += 1;
            let Some(cookie) = cookie.and_then(|cookie| Cookie::parse(std::str::from_utf8(&cookie).ok()?)) else {
                return Ok(());
            };
            reached.advance(cookie);
            if count >= page(options) {
                count = 0;
                touched.tell(other, &top, options, changes)?;
                changes.checkpoint(self.tokens.write(&Position::Cookie(reached.to_string())))?;
            }
            Ok(())
        })?;
        if done.outcome.is_of_cookie() {
            return Err(bad(done.outcome.error("can't be gone on from").message()));
        }
        done.outcome.check(&format!("reading the log {:?}", self.log))?;
        touched.tell(other, &top, options, changes)?;
        if let Some(cookie) = cookie.and_then(|cookie| Cookie::parse(std::str::from_utf8(&cookie).ok()?)) {
            reached.advance(cookie);
        }
        Ok(reached)
    }
}

/// What slapd's own replicas ask a log.
fn question(log: &str) -> Search {
    Search {
        base: log.to_owned(),
        scope: Scope::Subtree,
        filter: Filter::is("objectClass", "auditWriteObject").and(Filter::is("reqResult", "0")),
        attributes: ATTRIBUTES.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn noted(entry: &Entry) -> Result<Noted, Error> {
    let Some(uid) = entry.text("reqEntryUUID") else {
        return Err(Error::unsupported(format!("{:?} of the log has no reqEntryUUID", entry.dn)));
    };
    let dn = entry.text("reqDN").unwrap_or_default().to_owned();
    let what = match entry.text("reqType").unwrap_or_default() {
        "add" => What::Added,
        "modify" => What::Modified(changed(entry.values("reqMod"))),
        "modrdn" => What::Renamed(entry.text("reqNewDN").unwrap_or_default().to_owned()),
        "delete" => What::Deleted,
        other => return Err(Error::other(format!("{:?} of the log is of the unknown kind {other:?}", entry.dn))),
    };
    Ok(Noted { uid: uid.to_owned(), dn, what })
}

/// The attributes that changes name: `mail:+ a@x`.
fn changed(values: &[Vec<u8>]) -> HashSet<String> {
    let name = |value: &Vec<u8>| {
        let end = value.iter().position(|byte| *byte == b':')?;
        Some(base_name(std::str::from_utf8(&value[..end]).ok()?))
    };
    values.iter().filter_map(name).collect()
}
