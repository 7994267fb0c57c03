//! The attributes of a class: which there are, what each holds, and how an entry becomes an object.

use std::borrow::Cow;
use std::collections::HashSet;

use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Attribute, AttributeFlags, Error, Object, ObjectClass, Value};

use crate::client::{Client, Entry, Search};
use crate::filter::Filter;
use crate::schema::Schema;
use crate::server::Server;
use crate::settings::{Class, Feed};
use crate::touched::base_name;
use crate::values::value;

/// The option that says how a value travels, and not what it is.
const BINARY: &str = "binary";
/// An option by which a server gives only some of the values.
const RANGE: &str = "range=";

/// An attribute that is read.
#[derive(Debug)]
struct Column {
    name: String,
    cell: CellType,
    flags: AttributeFlags,
}

/// The attributes of a class.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    name_of_class: &'a str,
    pub(crate) class: &'a Class,
    pub(crate) filter: Filter,
    /// See [`deciding`](Self::deciding).
    deciding: Option<HashSet<String>>,
    columns: Vec<Column>,
    /// By what entries call them. They are few, and mostly told apart by how long their names are.
    places: Vec<(String, usize)>,
    requested: Vec<String>,
}

impl<'a> Selection<'a> {
    /// Asks the server. `wanted`: attributes; none means all.
    pub(crate) fn of(
        client: &mut Client,
        server: &Server,
        (name_of_class, class): (&'a str, &'a Class),
        wanted: Option<&[String]>,
    ) -> Result<Self, Error> {
        let schema = Schema::of(client, server)?;
        let filter = class.filter()?;
        let (columns, places, requested) = Default::default();
        let deciding = deciding(&filter, &schema);
        let mut this = Self { name_of_class, class, filter, deciding, columns, places, requested };
        let names = this.names(&schema)?;
        let is_one = |name: &str, names: &[String]| names.iter().any(|one| one.eq_ignore_ascii_case(name));
        for name in class.types.keys().chain(&class.sensitive) {
            if !is_one(name, &names) {
                return Err(
                    this.wrong(&format!("`types` and `sensitive` are of attributes, and {name:?} is none of it"))
                );
            }
        }
        for name in names {
            if wanted.is_none_or(|wanted| is_one(&name, wanted)) {
                this.add(&schema, name)?;
            }
        }
        let named = class.name.iter().filter(|name| this.place(name).is_none()).cloned().collect::<Vec<_>>();
        this.requested.extend(named);
        this.requested.push(class.uid.clone());
        Ok(this)
    }

    /// Attributes by which the filter decides, in small letters, by all of their names; none: any may.
    pub(crate) fn deciding(&self) -> Option<&HashSet<String>> {
        self.deciding.as_ref()
    }

    /// An error that names the class.
    pub(crate) fn wrong(&self, problem: &str) -> Error {
        Error::configuration(format!("setting `classes.{}`: {problem}", self.name_of_class))
    }

    /// What the settings name; or else all that the object classes may have which the settings name, or the filter.
    fn names(&self, schema: &Schema) -> Result<Vec<String>, Error> {
        if let Some(names) = &self.class.attributes {
            return Ok(names.clone());
        }
        let named = self.class.object_classes.as_ref().map(|names| names.iter().map(String::as_str).collect());
        let classes: Vec<&str> = named.unwrap_or_else(|| self.filter.object_classes());
        if classes.is_empty() {
            return Err(self.wrong(
                "which attributes are read? Name them in `attributes`, or the object classes that have them in \
                 `object_classes`, or in a filter such as (objectClass=inetOrgPerson)",
            ));
        }
        let mut names: Vec<String> = Vec::new();
        for class in classes {
            let of = schema.attributes_of(class);
            let of = of.ok_or_else(|| self.wrong(&format!("the server knows no object class {class:?}")))?;
            names.extend(of.into_iter().map(|name| match schema.attribute(name) {
                Some(attribute) => attribute.name.clone(),
                None => name.to_owned(),
            }));
        }
        names.sort_by_key(|name| name.to_ascii_lowercase());
        names.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
        names.retain(|name| !name.eq_ignore_ascii_case(&self.class.uid));
        Ok(names)
    }

    fn add(&mut self, schema: &Schema, name: String) -> Result<(), Error> {
        let base = name.split(';').next().unwrap_or_default();
        let described = schema.attribute(base);
        let typed = self.class.types.iter().find(|(typed, _)| typed.eq_ignore_ascii_case(&name)).map(|(_, cell)| *cell);
        let Some(described) = described else {
            return Err(self.wrong(&format!("the server knows no attribute {base:?}")));
        };
        let cell = typed.unwrap_or_else(|| schema.cell_type(described));
        let mut flags = AttributeFlags::empty();
        for (applies, flag) in [
            (!described.is_single, AttributeFlags::MULTI_VALUED),
            (cell == CellType::Text && schema.is_case_ignored(described), AttributeFlags::CASE_IGNORE),
            (cell == CellType::Secret, AttributeFlags::SENSITIVE),
            (self.class.sensitive.iter().any(|one| one.eq_ignore_ascii_case(&name)), AttributeFlags::SENSITIVE),
        ] {
            flags = if applies { flags | flag } else { flags };
        }
        if self.place(&key(&name)).is_some() {
            return Err(self.wrong(&format!("`attributes` has {name:?} twice")));
        }
        let place = self.columns.len();
        self.places.push((key(&name).into_owned(), place));
        // Some servers call it by another of its names than it was asked for by.
        if !described.name.eq_ignore_ascii_case(base) {
            self.places.push((key(&name.replacen(base, &described.name, 1)).into_owned(), place));
        }
        self.requested.push(name.clone());
        self.columns.push(Column { name, cell, flags });
        Ok(())
    }

    /// What is told of the class.
    pub(crate) fn object_class(&self) -> ObjectClass {
        let reports_deletes = match &self.class.changes {
            Some(Feed::Timestamp { .. }) | None => false,
            Some(_) => true,
        };
        let mut class = ObjectClass::new(self.name_of_class).reports_deletes(reports_deletes);
        if self.class.changes.is_none() {
            class = class.by_comparison();
        }
        self.columns
            .iter()
            .fold(class, |class, Column { name, cell, flags }| class.with_flags(name, cell.value_type(), *flags))
    }

    /// A question for entries of the class, of which more may be asked.
    pub(crate) fn search(&self, filter: Filter) -> Search {
        let Class { base, scope, .. } = self.class;
        Search { base: base.clone(), scope: *scope, filter, attributes: self.requested.clone() }
    }

    /// The object that an entry is.
    pub(crate) fn object(&self, entry: Entry) -> Result<Object, Error> {
        let uid = self.uid(&entry)?.to_owned();
        let name = match &self.class.name {
            Some(name) => entry.text(name).unwrap_or_default().to_owned(),
            None => entry.dn.clone(),
        };
        let mut object = Object::new(uid, name);
        // What isn't there has no values.
        object.attributes = self.columns.iter().map(|column| Attribute::whole(&column.name, None::<Value>)).collect();
        for (name, values) in entry.attributes {
            let key = key(&name);
            if let Some(place) = self.place(&key) {
                let cell = self.columns[place].cell;
                object.attributes[place].values.extend(values.into_iter().map(|bytes| value(cell, bytes)));
            } else if key.contains(RANGE) {
                return Err(Error::unsupported(format!("{:?}: the server gives {name:?} in ranges", entry.dn)));
            }
        }
        Ok(object)
    }

    fn place(&self, key: &str) -> Option<usize> {
        self.places.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, place)| *place)
    }

    /// The uid of an entry.
    pub(crate) fn uid<'e>(&self, entry: &'e Entry) -> Result<&'e str, Error> {
        let uid = entry.text(&self.class.uid).filter(|uid| !uid.is_empty());
        uid.ok_or_else(|| {
            self.wrong(&format!("{:?} has no {:?}, or this login may not see it", entry.dn, self.class.uid))
        })
    }

    pub(crate) fn name_of_class(&self) -> &'a str {
        self.name_of_class
    }
}

/// How an attribute is looked up: without regard to how its values travel.
fn key(name: &str) -> Cow<'_, str> {
    match name.contains(';') {
        false => name.into(),
        true => {
            let is_told = |option: &&str| !option.eq_ignore_ascii_case(BINARY);
            name.to_ascii_lowercase().split(';').filter(is_told).collect::<Vec<_>>().join(";").into()
        }
    }
}
/// By which attributes a filter decides; none: any may.
fn deciding(filter: &Filter, schema: &Schema) -> Option<HashSet<String>> {
    let mut deciding = Some(HashSet::new());
    filter.attributes(&mut |attribute| {
        let names = attribute.and_then(|name| schema.names_of(&base_name(name)));
        match (&mut deciding, names) {
            (Some(deciding), Some(names)) => deciding.extend(names.into_iter().map(str::to_owned)),
            _ => deciding = None,
        }
    });
    deciding
}
