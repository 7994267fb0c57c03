//! What a log of changes says was touched, told as it is now. Owns how an entry that isn't found any more is told apart from one that never
//! was among those of the class.

use std::collections::{HashMap, HashSet};

use tidewaiter_connector::{Change, Changes, Deleted, Error, Object, SyncOptions};

use crate::client::{Client, Found, Search};
use crate::dn::Dn;
use crate::filter::Filter;
use crate::objects::{STREAMED_AT_A_TIME, upsert};
use crate::selection::Selection;
use crate::settings::Scope;

/// So many are asked for at a time.
const AT_A_TIME: usize = 50;

/// What was done to an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Added,
    /// With the attributes that were changed, in small letters.
    Modified(HashSet<String>),
    /// To this name.
    Renamed(String),
    Deleted,
}

/// What a log says.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) uid: String,
    /// Where it was before.
    pub(crate) dn: String,
    pub(crate) what: What,
}

/// Entries that were touched, in the order in which they first were.
pub(crate) struct Touched<'a> {
    selection: &'a Selection<'a>,
    base: Option<Dn>,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

struct Entry {
    uid: String,
    name: Option<String>,
    /// If it isn't found, it may have been told before.
    may_be_gone: bool,
    /// It was renamed, and whether it was where it may have been told before.
    renamed: Option<bool>,
}

impl<'a> Touched<'a> {
    pub(crate) fn new(selection: &'a Selection<'a>) -> Self {
        let base = Dn::parse(&selection.class.base);
        Self { selection, base, entries: Vec::new(), places: HashMap::new() }
    }

    /// Remembers an entry.
    pub(crate) fn note(&mut self, noted: Noted) {
        let Noted { uid, dn, what } = noted;
        let was_within = self.may_be_within(&dn);
        let deciding = self.selection.deciding();
        // What wasn't touched where it counts was, if it isn't found, none before, either.
        let may_be_gone = match &what {
            What::Added => false,
            What::Modified(names) => was_within && deciding.is_none_or(|deciding| !deciding.is_disjoint(names)),
            What::Renamed(to) => was_within && (!self.is_within(to) || self.is_named_by(&[&dn, to])),
            // Wherever it was at its end: what it was below may have been renamed before.
            What::Deleted => true,
        };
        let place = *self.places.entry(uid.clone()).or_insert(self.entries.len());
        if place == self.entries.len() {
            self.entries.push(Entry { uid, name: None, may_be_gone: false, renamed: None });
        }
        let entry = &mut self.entries[place];
        if was_within {
            entry.name = self.selection.class.name.is_none().then_some(dn);
        }
        entry.may_be_gone |= may_be_gone;
        if matches!(what, What::Renamed(_)) {
            entry.renamed = Some(was_within || entry.renamed == Some(true));
        }
    }

    /// Whether what entries are called by decides, too.
    fn is_named_by(&self, names: &[&String]) -> bool {
        self.selection.deciding().is_none_or(|deciding| {
            let named = names.iter().filter_map(|name| Some(Dn::parse(name)?.naming()));
            named.flatten().any(|attribute| deciding.contains(&attribute))
        })
    }

    fn is_within(&self, dn: &str) -> bool {
        let dn = Dn::parse(dn);
        dn.zip(self.base.as_ref()).is_some_and(|(dn, base)| dn.is_within(base, self.selection.class.scope))
    }

    /// What is no name by our rules, or another one only by them, may be one by the server's.
    pub(crate) fn may_be_within(&self, dn: &str) -> bool {
        let dn = Dn::parse(dn);
        dn.zip(self.base.as_ref()).is_none_or(|(dn, base)| dn.may_be_within(base, self.selection.class.scope))
    }

    /// Tells of all of them, as they are now, and forgets them.
    pub(crate) fn tell(
        &mut self,
        client: &mut Client,
        top: &str,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<(), Error> {
        let (mut entries, mut places) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.places));
        let renamed: Vec<(String, bool)> =
            entries.iter().filter_map(|entry| Some((entry.uid.clone(), entry.renamed?))).collect();
        for (uid, may_be_gone) in renamed {
            // What is below it was renamed with it, of which no log says anything.
            for below in below(client, self.selection, top, &uid)? {
                let place = *places.entry(below.clone()).or_insert(entries.len());
                if place == entries.len() {
                    entries.push(Entry { uid: below, name: None, may_be_gone: false, renamed: None });
                }
                entries[place].may_be_gone |= may_be_gone;
            }
        }
        for some in entries.chunks(AT_A_TIME) {
            let mut found = found(client, self.selection, some)?;
            for Entry { uid, name, may_be_gone, .. } in some {
                match found.remove(uid) {
                    Some(object) => upsert(self.selection, object, None, options, changes)?,
                    None if *may_be_gone => {
                        let deleted = Deleted { uid: uid.clone(), name: name.clone(), last_known: None };
                        changes.push(Change::Delete(deleted).of(self.selection.name_of_class()))?;
                    }
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// Those that are among the objects of the class, by their uids.
fn found(client: &mut Client, selection: &Selection<'_>, entries: &[Entry]) -> Result<HashMap<String, Object>, Error> {
    let uids = entries.iter().map(|entry| Filter::is(&selection.class.uid, entry.uid.as_str())).collect();
    let search = selection.search(selection.filter.clone().and(Filter::Or(uids)));
    let mut found = HashMap::with_capacity(entries.len());
    let done = client.search(&search, &[], &mut |part| {
        if let Found::Entry(entry) = part {
            let object = selection.object(entry)?;
            found.insert(object.uid.clone(), object);
        }
        Ok(())
    })?;
    done.outcome.check(&search.what())?;
    Ok(found)
}

/// The uids of what is below a renamed entry now: it may have come in, gone out, or only changed its name. Whatever it is: what left the filter
/// since may have been told before.
fn below(client: &mut Client, selection: &Selection<'_>, top: &str, uid: &str) -> Result<Vec<String>, Error> {
    let attribute = &selection.class.uid;
    let search = Search {
        base: top.to_owned(),
        scope: Scope::Subtree,
        filter: Filter::is(attribute, uid),
        attributes: vec!["1.1".to_owned()],
    };
    let mut renamed = None;
    let done = client.search(&search, &[], &mut |part| {
        if let Found::Entry(entry) = part {
            renamed = Some(entry.dn);
        }
        Ok(())
    })?;
    done.outcome.check(&search.what())?;
    let Some(base) = renamed else { return Ok(Vec::new()) };
    let filter = Filter::Present(attribute.clone());
    let search = Search { base, scope: Scope::Subtree, filter, attributes: vec![attribute.clone()] };
    let mut below = Vec::new();
    client.search_paged(&search, STREAMED_AT_A_TIME, &mut |entry| {
        let below_it = selection.uid(&entry)?;
        if below_it != uid {
            below.push(below_it.to_owned());
        }
        Ok(())
    })?;
    Ok(below)
}

/// An attribute without its options, in small letters.
pub(crate) fn base_name(name: &str) -> String {
    name.split(';').next().unwrap_or_default().to_ascii_lowercase()
}
