//! One refresh of RFC 4533: its controls, its messages between entries, and the two phases in which a server tells what is gone, or what
//! is still there.

use lber::structure::PL;
use tidewaiter_connector::Error;

use crate::ber::{self, Parts};
use crate::client::{Client, Control, Done, Entry, Found, Search};

const REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
const STATE: &str = "1.3.6.1.4.1.4203.1.9.1.2";
const DONE: &str = "1.3.6.1.4.1.4203.1.9.1.3";
const INFO: &str = "1.3.6.1.4.1.4203.1.9.1.4";
/// No more than what is to be told now is asked for: the connection isn't kept.
const REFRESH_ONLY: u8 = 1;

/// Part of a refresh.
#[derive(Debug)]
pub(crate) enum Told {
    /// An entry that came or changed, its identifier, and the cookie after it, if there is one.
    Changed(Entry, Vec<u8>, Option<Vec<u8>>),
    /// Identifiers of what is gone, and the name of the one.
    Gone(Vec<Vec<u8>>, Option<String>),
    /// Identifiers of what is still there: all else is gone, and isn't named.
    Present,
}

/// The end of a refresh.
#[derive(Debug)]
pub(crate) struct Refreshed {
    pub(crate) done: Done,
    pub(crate) cookie: Option<Vec<u8>>,
    /// What was not told of is as it was, rather than gone.
    pub(crate) is_by_deletions: bool,
}

/// Asks for what changed after a cookie; without one, for everything.
pub(crate) fn refresh(
    client: &mut Client,
    search: &Search,
    cookie: Option<Vec<u8>>,
    each: &mut dyn FnMut(Told) -> Result<(), Error>,
) -> Result<Refreshed, Error> {
    let mut value = vec![ber::enumerated(REFRESH_ONLY)];
    value.extend(cookie.map(ber::octets));
    let control = Control { oid: REQUEST.to_owned(), value: ber::encoded(ber::sequence(value))? };
    let done = client.search(search, &[control], &mut |found| match found {
        Found::Entry(entry) => told(entry)?.map_or(Ok(()), &mut *each),
        Found::Intermediate(name, value) if name == INFO => info(&value)?.map_or(Ok(()), &mut *each),
        Found::Intermediate(..) => Ok(()),
    })?;
    let (mut cookie, mut is_by_deletions) = (None, false);
    if let Some(value) = done.control(DONE) {
        let mut parts = Parts::of(ber::decoded(value)?)?;
        cookie = parts.optional_octets()?;
        is_by_deletions = parts.optional_boolean()?.unwrap_or(false);
    }
    Ok(Refreshed { done, cookie, is_by_deletions })
}

fn told(entry: Entry) -> Result<Option<Told>, Error> {
    let state = entry.controls.iter().find(|control| control.oid == STATE);
    let no_state = || Error::other(format!("the server doesn't say in which state {:?} is", entry.dn));
    let mut parts = Parts::of(ber::decoded(&state.ok_or_else(no_state)?.value)?)?;
    let (state, identifier) = (parts.number()?, parts.octets()?);
    let cookie = parts.optional_octets()?;
    Ok(match state {
        0 => Some(Told::Present),
        1 | 2 => Some(Told::Changed(entry, identifier, cookie)),
        3 => Some(Told::Gone(vec![identifier], Some(entry.dn))),
        _ => return Err(ber::malformed()),
    })
}

/// What a message between entries says: a new cookie, the end of a phase, or many identifiers at once.
fn info(value: &[u8]) -> Result<Option<Told>, Error> {
    let tag = ber::decoded(value)?;
    match (tag.id, &tag.payload) {
        // Cookies of the middle say nothing about entries that come later.
        (0 | 1, _) => Ok(None),
        (2, _) => Ok(Some(Told::Present)),
        (3, PL::C(_)) => {
            let mut parts = Parts::of(tag)?;
            parts.optional_octets()?;
            let is_gone = parts.optional_boolean()?.unwrap_or(false);
            let identifiers = Parts::of(parts.part()?)?.map(ber::bytes).collect::<Result<_, _>>()?;
            Ok(Some(if is_gone { Told::Gone(identifiers, None) } else { Told::Present }))
        }
        _ => Err(ber::malformed()),
    }
}
