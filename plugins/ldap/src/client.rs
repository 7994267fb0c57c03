//! A connection to a server, logged in: operations of RFC 4511, one at a time. Owns how the connection is kept from being read, and what a
//! password is handed over to.

use lber::common::TagClass;
use lber::structure::PL;
use tidewaiter_connector::net::Connection;
use tidewaiter_connector::{Context, Error, secrets, warn};

use crate::ber::{self, Parts, Tag};
use crate::failure::{NO_SUCH_OBJECT, Outcome};
use crate::filter::Filter;
use crate::settings::{Scope, Settings, Tls};
pub(crate) use crate::wire::Control;
use crate::wire::{Message, Wire, out_of_turn, outcome};

/// Answers in pages: RFC 2696.
const PAGED: &str = "1.2.840.113556.1.4.319";

/// The protocol's operations, by the numbers of their tags.
mod operation {
    pub(super) const BIND: u64 = 0;
    pub(super) const BIND_ANSWER: u64 = 1;
    pub(super) const UNBIND: u64 = 2;
    pub(super) const SEARCH: u64 = 3;
    pub(super) const ENTRY: u64 = 4;
    pub(super) const SEARCH_DONE: u64 = 5;
    pub(super) const REFERENCE: u64 = 19;
    pub(super) const INTERMEDIATE: u64 = 25;
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    pub(crate) base: String,
    pub(crate) scope: Scope,
    pub(crate) filter: Filter,
    pub(crate) attributes: Vec<String>,
}

/// An entry, with what of it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) dn: String,
    pub(crate) attributes: Vec<(String, Vec<Vec<u8>>)>,
    pub(crate) controls: Vec<Control>,
}

impl Entry {
    /// The values of an attribute; none if there are none.
    pub(crate) fn values(&self, name: &str) -> &[Vec<u8>] {
        let found = self.attributes.iter().find(|(described, _)| described.eq_ignore_ascii_case(name));
        found.map_or(&[], |(_, values)| values)
    }

    /// Its first value, if that is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values(name).first().and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Part of an answer to a search.
#[derive(Debug)]
pub(crate) enum Found {
    Entry(Entry),
    /// A message between entries: its name and its value.
    Intermediate(String, Vec<u8>),
}

/// What is done with each part. An error ends the search, and the connection.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Found) -> Result<(), Error>;

/// The end of an answer.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) controls: Vec<Control>,
}

impl Done {
    pub(crate) fn control(&self, oid: &str) -> Option<&[u8]> {
        let control = self.controls.iter().find(|control| control.oid == oid);
        control.map(|control| control.value.as_slice())
    }
}

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct Client(Wire);

impl Client {
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let (host, port) = settings.server()?;
        let connection = Connection::open(host, port)?;
        let wire = match settings.tls {
            Tls::Required => Wire::new(connection.into_tls(host)?),
            Tls::AskedFor => Wire::new(connection).upgraded(host)?,
            Tls::Off => Wire::new(connection),
        };
        let mut this = Self(wire);
        if let Some(name) = &settings.bind {
            this.bind(name).with_context(|| format!("logging in to {host}:{port}"))?;
        }
        Ok(this)
    }

    /// A simple bind. With an empty password it would be none, and be answered with yes: RFC 4513, 5.1.2.
    fn bind(&mut self, name: &str) -> Result<(), Error> {
        let password = secrets::reveal("password")?;
        if password.is_empty() {
            return Err(Error::invalid_credential("the secret `password` is empty"));
        }
        let request = vec![ber::integer(3), ber::octets(name), ber::context(0, PL::P(password.clone()))];
        let id = self.0.send(ber::application(operation::BIND, PL::C(request)), Vec::new())?;
        let mut answer = self.0.answer(id, operation::BIND_ANSWER)?;
        let mut outcome = outcome(&mut answer)?;
        if outcome.message.as_bytes().windows(password.len()).any(|part| part == password) {
            outcome.message = "what it says about that has the password in it".to_owned();
        }
        outcome.check_login(&format!("as {name:?}"))
    }

    /// Whether there is an entry, and what the server says at the end of its answer.
    pub(crate) fn finds(&mut self, search: &Search) -> Result<(bool, Outcome), Error> {
        let mut is_there = false;
        let done = self.search(search, &[], &mut |found| {
            is_there |= matches!(found, Found::Entry(_));
            Ok(())
        })?;
        Ok((is_there, done.outcome))
    }

    /// Asks, and hands each part of the answer over as it comes.
    pub(crate) fn search(&mut self, search: &Search, controls: &[Control], each: Each<'_>) -> Result<Done, Error> {
        let id = self.0.send(request(search), controls.to_vec())?;
        let mut referrals = 0;
        loop {
            let Message { id: answered, operation, controls } = self.0.next()?;
            if answered != i64::from(id) || operation.class != TagClass::Application {
                return Err(out_of_turn());
            }
            match operation.id {
                operation::ENTRY => each(Found::Entry(entry(operation, controls)?))?,
                operation::INTERMEDIATE => {
                    let mut parts = Parts::of(operation)?;
                    let name = parts.context(0).map(ber::bytes).transpose()?.unwrap_or_default();
                    let value = parts.context(1).map(ber::bytes).transpose()?.unwrap_or_default();
                    each(Found::Intermediate(ber::text(name)?, value))?;
                }
                operation::REFERENCE => referrals += 1,
                operation::SEARCH_DONE => {
                    if referrals > 0 {
                        let base = &search.base;
                        warn!("{referrals} parts below {base:?} are on other servers, and are not read");
                    }
                    return Ok(Done { outcome: outcome(&mut Parts::of(operation)?)?, controls });
                }
                _ => return Err(out_of_turn()),
            }
        }
    }

    /// The same in pages of this many entries, on after the other.
    pub(crate) fn search_paged(
        &mut self,
        search: &Search,
        page: u32,
        each: &mut dyn FnMut(Entry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let size = i32::try_from(page).unwrap_or(i32::MAX);
        let mut cookie = Vec::new();
        loop {
            let value = ber::encoded(ber::sequence(vec![ber::integer(size), ber::octets(cookie.clone())]))?;
            let mut is_empty = true;
            let done = self.search(search, &[Control { oid: PAGED.to_owned(), value }], &mut |found| match found {
                Found::Entry(entry) => {
                    is_empty = false;
                    each(entry)
                }
                Found::Intermediate(..) => Ok(()),
            })?;
            done.outcome.check(&search.what())?;
            // A server without pages has given all.
            let Some(value) = done.control(PAGED) else { return Ok(()) };
            let mut parts = Parts::of(ber::decoded(value)?)?;
            parts.number()?;
            let next = parts.octets()?;
            if next.is_empty() {
                return Ok(());
            }
            if is_empty && next == cookie {
                return Err(Error::other(format!("{}: the server's pages are empty, and have no end", search.what())));
            }
            cookie = next;
        }
    }

    /// The entry with this name; none if there is none, or if it may not be seen.
    pub(crate) fn entry(&mut self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>, Error> {
        let search = Search {
            base: dn.to_owned(),
            scope: Scope::Base,
            filter: Filter::Present("objectClass".to_owned()),
            attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut read = None;
        let done = self.search(&search, &[], &mut |found| {
            if let Found::Entry(entry) = found {
                read = Some(entry);
            }
            Ok(())
        })?;
        if done.outcome.code != NO_SUCH_OBJECT {
            done.outcome.check(&search.what())?;
        }
        Ok(read)
    }
}

impl Drop for Client {
    /// Says goodbye, so that the server ends what it still does for us.
    fn drop(&mut self) {
        let _ = self.0.send(ber::application(operation::UNBIND, PL::P(Vec::new())), Vec::new());
    }
}

impl Search {
    /// What is being done, for errors.
    pub(crate) fn what(&self) -> String {
        format!("reading below {:?}", self.base)
    }
}

fn request(search: &Search) -> Tag {
    let Search { base, scope, filter, attributes } = search;
    // Aliases stay what they are, and there are no limits of our own.
    let parts = vec![
        ber::octets(base.as_str()),
        ber::enumerated(*scope as u8),
        ber::enumerated(0),
        ber::integer(0),
        ber::integer(0),
        ber::boolean(false),
        filter.to_tag(),
        ber::sequence(attributes.iter().map(|name| ber::octets(name.as_str())).collect()),
    ];
    ber::application(operation::SEARCH, PL::C(parts))
}

fn entry(tag: Tag, controls: Vec<Control>) -> Result<Entry, Error> {
    let mut parts = Parts::of(tag)?;
    let dn = parts.text()?;
    let attributes = Parts::of(parts.part()?)?.map(attribute).collect::<Result<_, _>>()?;
    Ok(Entry { dn, attributes, controls })
}

fn attribute(tag: Tag) -> Result<(String, Vec<Vec<u8>>), Error> {
    let mut parts = Parts::of(tag)?;
    let name = parts.text()?;
    let values = Parts::of(parts.part()?)?.map(ber::bytes).collect::<Result<_, _>>()?;
    Ok((name, values))
}
