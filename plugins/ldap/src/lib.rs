//! The connector `ldap`: changes out of LDAP directories.
//!
//! | module | owns |
//! |---|---|
//! | `settings` | what the operator says |
//! | `ber`, `wire`, `client`, `failure` | the protocol: its encoding, messages, a connection that is logged in, what a server says no with |
//! | `filter`, `dn` | what is asked of entries, and where they are |
//! | `server`, `schema`, `selection`, `values`, `uid` | which server it is, what it has, and how an entry becomes an object |
//! | `syncrepl`, `changelog`, `accesslog`, `timestamp` | the strategies, and why each is exact |
//! | `refresh`, `cookie`, `touched`, `seconds` | what they are made of |
//! | `objects`, `parts` | reading everything, and objects that are too large to be told at once |
//! | `token` | positions, as text |
//!
//! Nothing that comes from a directory or a token becomes part of a filter's text: filters are put together as what they are.

mod accesslog;
mod ber;
mod changelog;
mod client;
mod cookie;
mod dn;
mod failure;
mod filter;
mod objects;
mod parts;
mod refresh;
mod schema;
mod seconds;
mod selection;
mod server;
mod settings;
mod source;
mod syncrepl;
mod timestamp;
mod token;
mod touched;
mod uid;
mod values;
mod wire;

use tidewaiter_connector::{
    Capability, Changes, Connector, Error, Filter, Info, ObjectClass, Objects, Operation, SyncOptions, SyncToken,
};

use accesslog::Accesslog;
use changelog::{Changelog, Log};
pub use settings::Settings;
use settings::{Class, Feed};
use source::Source;
use syncrepl::Syncrepl;
use timestamp::Timestamp;
use token::Tokens;

/// The connector.
#[derive(Debug)]
pub struct Ldap(Settings);

tidewaiter_connector::export!(Ldap);

impl Connector for Ldap {
    type Settings = Settings;

    fn describe() -> Info {
        Info::new("ldap", env!("CARGO_PKG_VERSION"))
            .summary("Entries of an LDAP directory.")
            .operations([Operation::LiveSync, Operation::Search, Operation::SearchByUid, Operation::Check])
            .settings_schema(include_str!("../settings.schema.json"))
            .token_format(token::FORMAT)
            .needs(Capability::Tcp("{settings.server}".into()), "Connects to the directory.")
            .can_use(Capability::Reveal("password".into()), "Logs in by a simple bind, which hands the password over.")
    }

    fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self(settings.check()?))
    }

    fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
        let class =
            |(name, class): (&String, &Class)| Ok(Source::open(&self.0, (name, class), None)?.selection.object_class());
        self.0.classes.iter().map(class).collect()
    }

    fn check(&self) -> Result<(), Error> {
        self.0.classes.iter().try_for_each(|(name, class)| {
            let mut source = Source::open(&self.0, (name, class), None)?;
            let base = &class.base;
            if source.client.entry(base, &["1.1"])?.is_none() {
                return Err(source.selection.wrong(&format!("there is no {base:?}, or this login may not see it")));
            }
            class.changes.as_ref().map_or(Ok(()), |feed| Strategy::of(&mut source, feed).map(drop))
        })
    }

    fn latest_sync_token(&self, class: &str) -> Result<Option<SyncToken>, Error> {
        let mut source = self.source(class, None)?;
        let strategy = Strategy::of(&mut source, self.feed(class)?)?;
        let tokens = strategy.tokens().clone();
        let position = match strategy {
            Strategy::Syncrepl(strategy) => Some(strategy.latest()),
            Strategy::Changelog(strategy) => Some(strategy.latest(&mut source)?),
            Strategy::Accesslog(strategy) => Some(strategy.latest()),
            Strategy::Timestamp(strategy) => strategy.latest(&mut source)?,
        };
        Ok(position.map(|position| tokens.write(&position)))
    }

    fn sync(
        &self,
        class: &str,
        token: Option<SyncToken>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let feed = self.feed(class)?;
        let mut source = self.source(class, options.attributes.as_deref())?;
        let strategy = Strategy::of(&mut source, feed)?;
        let since = token.map(|token| strategy.tokens().read(&token)).transpose()?;
        let source = &mut source;
        match strategy {
            Strategy::Syncrepl(strategy) => strategy.sync(source, since, options, changes),
            Strategy::Changelog(strategy) => strategy.sync(source, since, options, changes),
            Strategy::Accesslog(strategy) => strategy.sync(source, since, options, changes),
            Strategy::Timestamp(strategy) => strategy.sync(source, since, options, changes),
        }
    }

    fn search(
        &self,
        class: &str,
        filter: Filter,
        page: Option<Vec<u8>>,
        options: &SyncOptions,
        objects: &mut Objects,
    ) -> Result<Option<Vec<u8>>, Error> {
        if page.is_some() {
            return Err(Error::other("the page is none of this connector, which gives all in one"));
        }
        let Source { mut client, selection, .. } = self.source(class, options.attributes.as_deref())?;
        match filter {
            Filter::ByUid(uid) => objects::one(&mut client, &selection, &uid, options, objects)?,
            Filter::All => objects::all(&mut client, &selection, options, objects)?,
        }
        Ok(None)
    }
}

impl Ldap {
    fn source<'a>(&'a self, class: &'a str, wanted: Option<&[String]>) -> Result<Source<'a>, Error> {
        Source::open(&self.0, (class, self.0.class(class)?), wanted)
    }

    fn feed(&self, class: &str) -> Result<&Feed, Error> {
        self.0.class(class)?.changes.as_ref().ok_or_else(|| {
            Error::unsupported(format!("setting `classes.{class}.changes` doesn't say how changes are found"))
        })
    }
}

/// How the changes of a class are found.
enum Strategy<'a> {
    Syncrepl(Syncrepl),
    Changelog(Changelog),
    Accesslog(Accesslog<'a>),
    Timestamp(Timestamp),
}

impl<'a> Strategy<'a> {
    /// Asks the server what it needs to know of it.
    fn of(source: &mut Source<'_>, feed: &'a Feed) -> Result<Self, Error> {
        let tokens = |source: &Source<'_>, server| Tokens::of(&source.selection, feed, server);
        Ok(match feed {
            Feed::Syncrepl { deletions } => Self::Syncrepl(Syncrepl::of(source, *deletions, tokens)?),
            Feed::Accesslog { base } => Self::Accesslog(Accesslog::of(source, base, tokens)?),
            Feed::Changelog => {
                let log = Log::of(&mut source.client, &source.server)?;
                let server = format!("{} {}", source.tree()?, log.id);
                Self::Changelog(Changelog { log, tokens: tokens(source, server) })
            }
            Feed::Timestamp { .. } => {
                let tree = source.tree()?;
                Self::Timestamp(Timestamp { lag: feed.lag(), tokens: tokens(source, tree) })
            }
        })
    }

    fn tokens(&self) -> &Tokens {
        match self {
            Self::Syncrepl(strategy) => &strategy.tokens,
            Self::Changelog(strategy) => &strategy.tokens,
            Self::Accesslog(strategy) => &strategy.tokens,
            Self::Timestamp(strategy) => &strategy.tokens,
        }
    }
}
