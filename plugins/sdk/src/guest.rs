//! Between the generated bindings and the [`Connector`] trait: the exports of the component. Owns the parsing of the settings
//! and the end of a call; it may not know anything about a source.

use std::marker::PhantomData;

use crate::bindings::exports::tidewaiter::connector as exports;
use crate::bindings::tidewaiter::connector::types::ConnectorError;
use crate::{Changes, Connector, Error, Filter, Info, ObjectClass, Objects, SyncOptions, SyncToken, host};

/// A component's exports, answered by a [`Connector`]. Used through [`export!`](crate::export).
#[derive(Debug)]
pub struct Exported<C>(PhantomData<C>);

/// Nothing but the proof that the type is a connector.
pub const fn natively<C: Connector>() -> Option<Exported<C>> {
    None
}

fn open<C: Connector>() -> Result<C, Error> {
    let text = host::settings();
    let json = &mut serde_json::Deserializer::from_str(&text);
    let settings = serde_path_to_error::deserialize(json).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { "settings".to_owned() } else { format!("setting `{path}`") };
        // A position in the host's rendering of the settings says nothing to an operator.
        let inner = error.into_inner().to_string();
        let reason = inner.split(" at line ").next().unwrap_or(&inner);
        Error::configuration(format!("{at}: {reason}"))
    })?;
    C::new(settings)
}

fn answer<T>(outcome: Result<T, Error>) -> Result<T, ConnectorError> {
    outcome.map_err(ConnectorError::from)
}

impl<C: Connector> exports::descriptor::Guest for Exported<C> {
    fn describe() -> Info {
        C::describe()
    }

    fn migrate_settings(from_version: u32, settings: String) -> Result<String, ConnectorError> {
        let migrate = || {
            let settings =
                serde_json::from_str(&settings).map_err(|error| Error::configuration(format!("settings: {error}")))?;
            Ok(C::migrate_settings(from_version, settings)?.to_string())
        };
        answer(migrate())
    }
}

impl<C: Connector> exports::schema::Guest for Exported<C> {
    fn object_classes() -> Result<Vec<ObjectClass>, ConnectorError> {
        answer(open::<C>().and_then(|connector| connector.object_classes()))
    }
}

impl<C: Connector> exports::check::Guest for Exported<C> {
    fn check() -> Result<(), ConnectorError> {
        answer(open::<C>().and_then(|connector| connector.check()))
    }
}

impl<C: Connector> exports::live_sync::Guest for Exported<C> {
    fn get_latest_sync_token(class: String) -> Result<Option<SyncToken>, ConnectorError> {
        answer(open::<C>().and_then(|connector| connector.latest_sync_token(&class)))
    }

    fn sync(
        class: String,
        token: Option<SyncToken>,
        options: SyncOptions,
    ) -> Result<Option<SyncToken>, ConnectorError> {
        let sync = || {
            let connector = open::<C>()?;
            let mut changes = Changes::new(&options);
            let outcome = connector.sync(&class, token, &options, &mut changes);
            changes.end(outcome)
        };
        answer(sync())
    }
}

impl<C: Connector> exports::search::Guest for Exported<C> {
    fn search(
        class: String,
        filter: Filter,
        page: Option<Vec<u8>>,
        options: SyncOptions,
    ) -> Result<Option<Vec<u8>>, ConnectorError> {
        let search = || {
            let connector = open::<C>()?;
            let mut objects = Objects::new(&options);
            let outcome = connector.search(&class, filter, page, &options, &mut objects);
            objects.end(outcome)
        };
        answer(search())
    }
}
