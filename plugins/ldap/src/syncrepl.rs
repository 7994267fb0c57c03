//! Changes by the server's own cookie: RFC 4533, which sees deletions.
//!
//! **What is exact, and why.** The server says what changed after a cookie, and gives the next one; what lies in between is its to know,
//! and nothing is told without the cookie after it. What it can't know any more it says in one of two ways, and both refuse the token: that a
//! refresh is required, or by naming what is still there instead of what is gone. A cookie is only given back to the server that gave it.
//!
//! 389 keeps its changes in a numbered log, doesn't notice what was thrown away there, and says of each answer that it names what is
//! still there, which it never does. So its log is looked at here, too. And what it tells after a cookie has other attributes than were
//! asked for: it is read again.

use tidewaiter_connector::{Change, Changes, Deleted, Error, SyncOptions, SyncToken, warn};

use crate::changelog::Log;
use crate::client::{Client, Search};
use crate::cookie::Cookie;
use crate::filter::Filter;
use crate::objects::upsert;
use crate::refresh::{Refreshed, Told, refresh};
use crate::server::Kind;
use crate::settings::{Deletions, Scope};
use crate::source::Source;
use crate::token::{Position, Tokens, bad, unknown_changes};
use crate::touched::{Noted, Touched, What};
use crate::uid::Form;
use crate::values::{base64, from_base64};

/// A class whose server gives cookies.
pub(crate) struct Syncrepl {
    pub(crate) deletions: Deletions,
    pub(crate) tokens: Tokens,
    form: Form,
    /// 389's log.
    log: Option<Log>,
    /// The server's cookie of now.
    now: Vec<u8>,
}

impl Syncrepl {
    /// Asks the server who it is.
    pub(crate) fn of(
        source: &mut Source<'_>,
        deletions: Deletions,
        tokens: impl FnOnce(&Source<'_>, String) -> Tokens,
    ) -> Result<Self, Error> {
        let form = form(source)?;
        let mut server = source.tree()?;
        let log = match source.server.kind {
            Kind::Ds389 => Some(Log::of(&mut source.client, &source.server)?),
            _ => None,
        };
        let now = cookie_of_now(&mut source.client, &source.selection.search(source.selection.filter.clone()))?;
        if let Some(log) = &log {
            server = format!("{server} {}", log.id);
        }
        if source.server.kind == Kind::Slapd {
            let cookie = std::str::from_utf8(&now).ok().and_then(Cookie::parse);
            let id = cookie.and_then(|cookie| cookie.server).unwrap_or_default();
            server = format!("{server} {id}");
        }
        let tokens = tokens(source, server);
        Ok(Self { deletions, tokens, form, log, now })
    }

    /// After everything that was changed.
    pub(crate) fn latest(self) -> Position {
        position(self.now)
    }

    /// Hands over what changed.
    pub(crate) fn sync(
        &self,
        source: &mut Source<'_>,
        since: Option<Position>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let since = match since.map(|since| self.cookie(source, since)).transpose()? {
            Some(None) => {
                warn!(
                    "the server was ended before it noted which changes it has, and tells of none after these before the next one: \
                     `syncprov-checkpoint` makes that rarer"
                );
                return Ok(None);
            }
            since => since.flatten(),
        };
        let has_token = since.is_some();
        let Source { client, selection, server, .. } = source;
        let is_present_refused = has_token && self.deletions == Deletions::Told && server.kind != Kind::Ds389;
        let (mut count, form) = (0, self.form);
        let is_read_again = has_token && server.kind == Kind::Ds389;
        let mut touched = Touched::new(selection);
        let search = selection.search(selection.filter.clone());
        let Refreshed { done, cookie, is_by_deletions } =
            refresh(client, &search, since.clone(), &mut |told| match told {
                Told::Changed(entry, identifier, _) if is_read_again => {
                    count += 1;
                    // If it isn't found it is gone since, which comes after the next cookie.
                    touched.note(Noted { uid: form.text(&identifier)?, dn: entry.dn, what: What::Added });
                    Ok(())
                }
                Told::Changed(entry, ..) => {
                    count += 1;
                    Ok(upsert(selection, selection.object(entry)?, None, options, changes)?)
                }
                // Where nothing was told nothing is gone.
                Told::Gone(..) if !has_token => Ok(()),
                Told::Gone(identifiers, name) => identifiers.into_iter().try_for_each(|identifier| {
                    count += 1;
                    let deleted = Deleted { uid: form.text(&identifier)?, name: name.clone(), last_known: None };
                    Ok(changes.push(Change::Delete(deleted).of(selection.name_of_class()))?)
                }),
                Told::Present if is_present_refused => Err(no_deletions()),
                Told::Present => Ok(()),
            })?;
        if done.outcome.is_of_cookie() {
            return Err(bad(done.outcome.error("is too old, or later than anything here").message()));
        }
        done.outcome.check(&search.what())?;
        if is_present_refused && !is_by_deletions {
            return Err(no_deletions());
        }
        let top = server.top(&selection.class.base).unwrap_or_default().to_owned();
        touched.tell(client, &top, options, changes)?;
        match cookie {
            Some(cookie) if Some(&cookie) != since.as_ref() => Ok(Some(self.tokens.write(&position(cookie)))),
            None if count > 0 => Err(Error::other("the server told of changes, and gave no cookie after them")),
            _ => Ok(None),
        }
    }

    /// The cookie of a token, if the server can still go on from it. None: it can when it has noted what it has.
    fn cookie(&self, source: &mut Source<'_>, since: Position) -> Result<Option<Vec<u8>>, Error> {
        let cookie = match since {
            Position::Cookie(cookie) => cookie.into_bytes(),
            Position::CookieBase64(text) => from_base64(&text).ok_or_else(|| bad("has a cookie that is none"))?,
            _ => return Err(bad("has a position that is no cookie")),
        };
        let text = std::str::from_utf8(&cookie).ok();
        match (source.server.kind, &self.log) {
            // It takes anything that it can't read for none, and answers with everything.
            (Kind::Slapd, _) => match text.and_then(Cookie::parse) {
                Some(since) if !since.changes.is_empty() => {
                    let now = std::str::from_utf8(&self.now).ok().and_then(Cookie::parse).unwrap_or_default();
                    let missing = now.before(since.changes.values().map(String::as_str));
                    match missing.is_empty() {
                        true => Ok(Some(cookie)),
                        false if are_there(source, &missing)? => Ok(None),
                        false => Err(unknown_changes()),
                    }
                }
                _ => Err(bad("has a cookie that is none of slapd's")),
            },
            (_, Some(log)) => {
                let number = text.and_then(|text| text.rsplit_once('#')?.1.parse().ok());
                let number = number.ok_or_else(|| bad("has a cookie that is none of 389's"))?;
                log.check(&mut source.client, number, None)?;
                Ok(Some(cookie))
            }
            _ => Ok(Some(cookie)),
        }
    }
}

/// Whether entries of the tree have these changes: then the server has them, whatever it noted before it was ended.
fn are_there(source: &mut Source<'_>, changes: &[&str]) -> Result<bool, Error> {
    let base = &source.selection.class.base;
    let base = source.server.top(base).unwrap_or(base).to_owned();
    for change in changes {
        let (filter, attributes) = (Filter::is("entryCSN", *change), vec!["1.1".to_owned()]);
        let search = Search { base: base.clone(), scope: Scope::Subtree, filter, attributes };
        // Where the login may not look, it isn't to be known.
        if !source.client.finds(&search)?.0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How the server's identifiers are written as uids.
fn form(source: &Source<'_>) -> Result<Form, Error> {
    let uid = &source.selection.class.uid;
    let wanted = if source.server.kind == Kind::Ds389 { "nsUniqueId" } else { "entryUUID" };
    match Form::of(uid) {
        Some(form) if wanted.eq_ignore_ascii_case(uid) => Ok(form),
        _ => {
            let problem = format!("by syncrepl this server tells of deletions by {wanted}, and `uid` is {uid:?}");
            Err(source.selection.wrong(&problem))
        }
    }
}

/// The cookie after everything. It isn't bound to how far below the base is read, so the base alone is.
fn cookie_of_now(client: &mut Client, search: &Search) -> Result<Vec<u8>, Error> {
    let search = Search { scope: Scope::Base, attributes: vec!["1.1".to_owned()], ..search.clone() };
    let Refreshed { done, cookie, .. } = refresh(client, &search, None, &mut |_| Ok(()))?;
    done.outcome.check(&format!("asking for a cookie of {:?}", search.base))?;
    cookie.filter(|cookie| !cookie.is_empty()).ok_or_else(|| {
        Error::configuration(format!(
            "the server gives no cookie for {:?} (slapd: `overlay syncprov`; 389: the plugin Content Synchronization)",
            search.base
        ))
    })
}

fn position(cookie: Vec<u8>) -> Position {
    match String::from_utf8(cookie) {
        Ok(text) => Position::Cookie(text),
        Err(error) => Position::CookieBase64(base64(error.as_bytes())),
    }
}

fn no_deletions() -> Error {
    bad(
        "is older than what the server knows of deletions: slapd remembers as many changes as `syncprov-sessionlog` says, \
         or, with `syncprov-sessionlog-source`, as the access log has; or set deletions = \"unseen\"",
    )
}
