//! The connector `sql`: changes out of the tables, views and queries of a relational database.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | what the operator says |
//! | `database` | what a strategy may ask of a server; `postgresql` and `mariadb` answer it |
//! | `selection`, `values` | the columns of a class, and what their cells mean |
//! | `ordered`, `log` | the strategies, and why each is exact |
//! | `objects` | reading everything, page by page |
//! | `token` | positions, as text |
//!
//! A server is asked by parameters: names are quoted, and no value of a row or of a token ever becomes part of a statement. Of the
//! settings only the operator's query does, and the zone, which is checked.

mod database;
mod log;
mod mariadb;
mod objects;
mod ordered;
mod postgresql;
mod selection;
mod settings;
mod token;
mod values;

use std::time::Duration;

use tidewaiter_connector::{
    Capability, Changes, Connector, Error, Filter, Info, ObjectClass, Objects, Operation, SyncOptions, SyncToken, warn,
};

use database::Database;
use log::Logged;
use ordered::Ordered;
use selection::Selection;
pub use settings::Settings;
use settings::{Class, Feed};
use token::Tokens;

/// The connector.
#[derive(Debug)]
pub struct Sql(Settings);

tidewaiter_connector::export!(Sql);

impl Connector for Sql {
    type Settings = Settings;

    fn describe() -> Info {
        Info::new("sql", env!("CARGO_PKG_VERSION"))
            .summary("Tables, views and queries of a PostgreSQL or MariaDB database.")
            .operations([Operation::LiveSync, Operation::Search, Operation::SearchByUid, Operation::Check])
            .settings_schema(include_str!("../settings.schema.json"))
            .token_format(token::FORMAT)
            .needs(Capability::Tcp("{settings.server}".into()), "Connects to the database's server.")
            .needs(Capability::Reveal("password".into()), "Proves to the server that it knows the password.")
    }

    fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self(settings.check()?))
    }

    fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
        let mut database = database::open(&self.0)?;
        let class =
            |(name, class): (&String, &Class)| Ok(Selection::of(database.as_mut(), name, class, None)?.object_class());
        self.0.classes.iter().map(class).collect()
    }

    fn check(&self) -> Result<(), Error> {
        let mut database = database::open(&self.0)?;
        self.0.classes.iter().try_for_each(|(name, class)| check(database.as_mut(), name, class))
    }

    fn latest_sync_token(&self, class: &str) -> Result<Option<SyncToken>, Error> {
        let (name, class) = (class, self.0.class(class)?);
        let mut database = database::open(&self.0)?;
        let strategy = Strategy::of(name, class)?;
        let selection = Selection::of(database.as_mut(), name, class, None)?;
        let position = match &strategy {
            Strategy::Ordered(ordered) => ordered.latest(database.as_mut(), &selection)?,
            Strategy::Logged(logged) => Some(logged.latest(database.as_mut(), &selection, CHECK_MAX)?),
        };
        Ok(position.map(|position| strategy.tokens().write(&position)))
    }

    fn sync(
        &self,
        class: &str,
        token: Option<SyncToken>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let (name, class) = (class, self.0.class(class)?);
        let strategy = Strategy::of(name, class)?;
        let since = token.map(|token| strategy.tokens().read(&token)).transpose()?;
        let mut database = database::open(&self.0)?;
        let database = database.as_mut();
        let selection = Selection::of(database, name, class, options.attributes.as_deref())?;
        let token = match strategy {
            Strategy::Ordered(ordered) => ordered.sync(database, (&selection, since), options, changes),
            Strategy::Logged(logged) => logged.sync(database, (&selection, since), options, changes),
        }?;
        database.end()?;
        Ok(token)
    }

    fn search(
        &self,
        class: &str,
        filter: Filter,
        page: Option<Vec<u8>>,
        options: &SyncOptions,
        objects: &mut Objects,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (name, class) = (class, self.0.class(class)?);
        let mut database = database::open(&self.0)?;
        let selection = Selection::of(database.as_mut(), name, class, options.attributes.as_deref())?;
        let page = match filter {
            Filter::ByUid(uid) => {
                objects::one(database.as_mut(), &selection, &uid, options, objects)?;
                None
            }
            Filter::All => objects::page(database.as_mut(), &selection, page, options, objects)?,
        };
        database.end()?;
        Ok(page)
    }
}

/// A statement of a check takes less.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// How the changes of a class are found.
enum Strategy<'a> {
    Ordered(Ordered<'a>),
    Logged(Logged<'a>),
}

impl<'a> Strategy<'a> {
    fn of(name: &str, class: &'a Class) -> Result<Self, Error> {
        let Some(feed) = &class.changes else {
            let problem = format!("setting `classes.{name}.changes` doesn't say how changes are found");
            return Err(Error::unsupported(problem));
        };
        let tokens = Tokens::of(class, feed);
        Ok(match feed {
            Feed::Timestamp { column, .. } | Feed::Number { column, .. } => {
                Self::Ordered(Ordered { class, feed, column, tokens })
            }
            Feed::Log { watched } => Self::Logged(Logged { class, watched: watched.as_deref(), tokens }),
        })
    }

    fn tokens(&self) -> &Tokens {
        match self {
            Self::Ordered(ordered) => &ordered.tokens,
            Self::Logged(logged) => &logged.tokens,
        }
    }
}

fn check(database: &mut dyn Database, name: &str, class: &Class) -> Result<(), Error> {
    let selection = Selection::of(database, name, class, None)?;
    // As in a run, and so that nothing is changed.
    database.begin(CHECK_MAX)?;
    let query = format!("SELECT {} FROM {} LIMIT 1", selection.cells(database), selection.from(database));
    database.select(&query, &[], &mut |row| selection.object(row, 0).map(drop))?;
    let strategy = class.changes.as_ref().map(|_| Strategy::of(name, class)).transpose()?;
    if let Some(Strategy::Ordered(ordered)) = &strategy {
        let unseen = ordered.check(database, &selection)?;
        if unseen > 0 {
            warn!("class {name:?}: {unseen} rows have nothing in {:?}, and are never seen", ordered.column);
        }
    }
    database.end()?;
    match strategy {
        Some(Strategy::Logged(logged)) => logged.latest(database, &selection, CHECK_MAX).map(drop),
        _ => Ok(()),
    }
}
