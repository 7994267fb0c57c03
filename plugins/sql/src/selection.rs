//! The columns of a class: which there are, what each is for, and how a row becomes a delta.

use tidewaiter_connector::cells::CellType;
use tidewaiter_connector::{Attribute, AttributeFlags, Change, Deleted, Delta, Error, Object, ObjectClass, Value};

use crate::database::{Column, Database, Row};
use crate::settings::{Class, Feed, Source};
use crate::values::{boolean, timestamp, value};

/// The columns of a class.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    name_of_class: &'a str,
    class: &'a Class,
    columns: Vec<Column>,
    /// Places among the columns.
    uid: usize,
    name: usize,
    deleted: Option<usize>,
    attributes: Vec<usize>,
}

impl<'a> Selection<'a> {
    /// Asks the server. `wanted`: attributes; none means all.
    pub(crate) fn of(
        database: &mut dyn Database,
        name_of_class: &'a str,
        class: &'a Class,
        wanted: Option<&[String]>,
    ) -> Result<Self, Error> {
        let columns = database.columns(class.source())?;
        let mut this = Self { name_of_class, class, columns, uid: 0, name: 0, deleted: None, attributes: Vec::new() };
        this.uid = this.place(&class.uid)?;
        if this.uid().cell == CellType::Real {
            return Err(this.wrong(&format!("{:?}, the column of the uid, has numbers that are not exact", class.uid)));
        }
        this.name = this.place(class.name())?;
        this.deleted = class.deleted.as_ref().map(|name| this.place(name)).transpose()?;
        let keys = [Some(this.uid), Some(this.name), this.deleted];
        for name in class.types.keys().chain(&class.sensitive) {
            if keys.contains(&Some(this.place(name)?)) {
                return Err(this.wrong(&format!("`types` and `sensitive` are of attributes, and {name:?} is none")));
            }
        }
        let is_wanted =
            |name: &str| wanted.is_none_or(|wanted| wanted.iter().any(|one| one.eq_ignore_ascii_case(name)));
        for (place, column) in this.columns.iter().enumerate() {
            let same = |other: &Column| other.name.eq_ignore_ascii_case(&column.name);
            if this.columns[..place].iter().any(same) {
                return Err(this.wrong(&format!(
                    "it has two columns {:?}; names are compared without regard to case",
                    column.name
                )));
            }
            if !keys.contains(&Some(place)) && is_wanted(&column.name) {
                this.attributes.push(place);
            }
        }
        for (place, column) in this.columns.iter_mut().enumerate() {
            let typed = class.types.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            if let Some((_, cell)) = typed {
                column.cell = *cell;
            }
            // A position is compared as it is stored.
            column.is_local &= column.cell == CellType::Timestamp && this.attributes.contains(&place);
        }
        Ok(this)
    }

    /// An error that names the class and its source.
    pub(crate) fn wrong(&self, problem: &str) -> Error {
        let source = match self.class.source() {
            Source::Table(name) => format!("table {name:?}"),
            Source::Query(_) => "its query".to_owned(),
        };
        Error::configuration(format!("setting `classes.{}`, {source}: {problem}", self.name_of_class))
    }

    /// The place of a column, by its exact name or the only one that differs in case.
    fn place(&self, name: &str) -> Result<usize, Error> {
        let exact = self.columns.iter().position(|column| column.name == name);
        let found = exact.or_else(|| self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            self.wrong(&format!("there is no column {name:?}; there are: {}", names.join(", ")))
        })
    }

    /// A column that the settings name.
    pub(crate) fn column(&self, name: &str) -> Result<&Column, Error> {
        Ok(&self.columns[self.place(name)?])
    }

    /// The column of the uid.
    pub(crate) fn uid(&self) -> &Column {
        &self.columns[self.uid]
    }

    /// What the server says of the class.
    pub(crate) fn object_class(&self) -> ObjectClass {
        let reports_deletes = self.deleted.is_some() || matches!(self.class.changes, Some(Feed::Log { .. }));
        let mut class = ObjectClass::new(self.name_of_class).reports_deletes(reports_deletes);
        if self.class.changes.is_none() {
            class = class.by_comparison();
        }
        for place in &self.attributes {
            let Column { name, cell, members, .. } = &self.columns[*place];
            let mut flags = AttributeFlags::empty();
            if members.is_some() {
                flags = flags | AttributeFlags::MULTI_VALUED | AttributeFlags::ORDERED;
            }
            if self.class.sensitive.iter().any(|one| one.eq_ignore_ascii_case(name)) {
                flags = flags | AttributeFlags::SENSITIVE;
            }
            class = class.with_flags(name, cell.value_type(), flags);
        }
        class
    }

    /// What a query reads from.
    pub(crate) fn from(&self, database: &dyn Database) -> String {
        database.from(self.class.source())
    }

    /// What a query reads of each row: uid, name, mark of deletion, attributes.
    pub(crate) fn cells(&self, database: &dyn Database) -> String {
        let mark = self.deleted.unwrap_or(self.uid);
        let places = [self.uid, self.name, mark].into_iter().chain(self.attributes.iter().copied());
        let cells = places.map(|place| match &self.columns[place] {
            column if column.is_local => database.with_offset(column),
            column => database.raw(column),
        });
        cells.collect::<Vec<_>>().join(", ")
    }

    /// The uid of a row whose [`cells`](Self::cells) begin at `first`.
    pub(crate) fn uid_of<'r>(&self, row: Row<'r>, first: usize) -> Result<&'r str, Error> {
        let uid = row.cell(first)?;
        let uid = uid.filter(|uid| !uid.is_empty());
        uid.ok_or_else(|| self.wrong(&format!("a row has no {:?}, the column of the uid", self.class.uid)))
    }

    /// The object of a row.
    pub(crate) fn object(&self, row: Row<'_>, first: usize) -> Result<Object, Error> {
        let mut object = Object::new(self.uid_of(row, first)?, row.cell(first + 1)?.unwrap_or_default());
        object.attributes.reserve_exact(self.attributes.len());
        for (nth, place) in self.attributes.iter().enumerate() {
            let column = &self.columns[*place];
            let values = match (row.cell(first + 3 + nth)?, column.members) {
                (None, _) => Vec::new(),
                (Some(text), None) => vec![value(column.cell, text)],
                (Some(text), Some(members)) => match members(text) {
                    Some(members) => members.iter().map(|member| value(column.cell, member)).collect(),
                    // Of more than one dimension: a fault where it is none of the type.
                    None => vec![Value::Text(text.to_owned())],
                },
            };
            object.attributes.push(Attribute::whole(&column.name, values));
        }
        Ok(object)
    }

    /// Whether a row is marked as deleted.
    pub(crate) fn is_deleted(&self, row: Row<'_>, first: usize) -> Result<bool, Error> {
        Ok(match (self.deleted.map(|place| self.columns[place].cell), row.cell(first + 2)?) {
            (None, _) | (_, None) => false,
            (Some(CellType::Boolean), Some(mark)) => boolean(mark).unwrap_or(true),
            (Some(_), Some(_)) => true,
        })
    }

    /// The change that a row tells of, by its mark of deletion.
    pub(crate) fn delta(&self, row: Row<'_>, first: usize, at: Option<&str>) -> Result<Delta, Error> {
        let object = self.object(row, first)?;
        let mut delta = match self.is_deleted(row, first)? {
            false => Delta::upsert(self.name_of_class, object),
            true => {
                let (uid, name) = (object.uid.clone(), Some(object.name.clone()));
                Change::Delete(Deleted { uid, name, last_known: Some(object) }).of(self.name_of_class)
            }
        };
        delta.source_time = at.and_then(timestamp);
        Ok(delta)
    }

    /// The change that an object tells of which isn't there any more.
    pub(crate) fn gone(&self, uid: &str) -> Delta {
        Delta::delete(self.name_of_class, uid)
    }
}
