//! The trait that authors implement. Owns the defaults of what they leave out.

use serde::de::DeserializeOwned;

use crate::{Changes, Error, Filter, Info, ObjectClass, Objects, SyncOptions, SyncToken};

/// A connector. What is left out answers `unsupported`; [`Info::operations`] says what is real.
///
/// A value of it lives for one call: what is kept in memory is gone afterwards. Whatever must survive goes into the sync
/// token.
pub trait Connector: Sized {
    /// What the operator configures. Settings that don't parse are answered for you, with the name of the field.
    type Settings: DeserializeOwned;

    /// What this connector is. The same answer always.
    fn describe() -> Info;

    /// With these settings. Reach for the source in the functions below, not here.
    fn new(settings: Self::Settings) -> Result<Self, Error>;

    /// The object classes and their attributes. May ask the source.
    fn object_classes(&self) -> Result<Vec<ObjectClass>, Error>;

    /// Reaches the source and logs in, reads a little, changes nothing.
    fn check(&self) -> Result<(), Error> {
        Err(unsupported("check"))
    }

    /// The resume point after the latest change of the source; none if it had no change yet. Every change that is committed in
    /// the source after this returned must be seen by a [`sync`](Self::sync) of the answer.
    fn latest_sync_token(&self, class: &str) -> Result<Option<SyncToken>, Error> {
        let _ = class;
        Err(unsupported("live sync"))
    }

    /// Pushes the changes after the token, and returns the token to go on from next time; none keeps the last
    /// checkpoint. Without token: from the first change that the source can still report.
    fn sync(
        &self,
        class: &str,
        token: Option<SyncToken>,
        options: &SyncOptions,
        changes: &mut Changes,
    ) -> Result<Option<SyncToken>, Error> {
        let _ = (class, token, options, changes);
        Err(unsupported("live sync"))
    }

    /// Pushes one page of the objects as they are now, and returns the position of the next page; none: that was all.
    fn search(
        &self,
        class: &str,
        filter: Filter,
        page: Option<Vec<u8>>,
        options: &SyncOptions,
        objects: &mut Objects,
    ) -> Result<Option<Vec<u8>>, Error> {
        let _ = (class, filter, page, options, objects);
        Err(unsupported("search"))
    }

    /// Turns settings of an older version into those of [`Info::settings_version`].
    fn migrate_settings(from_version: u32, settings: serde_json::Value) -> Result<serde_json::Value, Error> {
        let _ = (from_version, settings);
        Err(unsupported("migrating settings"))
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("this connector does not offer {what}"))
}
