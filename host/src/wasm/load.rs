//! Loads a connector: bytes, a component, its imports by name, its description.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tidewaiter_core::limit::Limits;
use tidewaiter_core::name::ConnectorName;
use tidewaiter_core::run::Failure;
use tidewaiter_core::schema::{BadDescription, ConnectorInfo};
use tidewaiter_core::text::hex;
use tidewaiter_core::token::TOKEN_BYTES_MAX;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::tidewaiter::connector as wit;
use super::bindings::{Connector as World, ConnectorPre};
use super::compile::CompileError;
use super::convert;
use super::engine::Engine;
use super::instance::guarded;
use super::log::GuestLog;
use super::schema::{SettingsProblem, SettingsSchema};
use super::state::{self, Inside, State};
use super::{files, http, sockets};

/// The largest component that is loaded, in bytes.
pub(crate) const COMPONENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long `describe` and `migrate-settings` may take.
const ALONE_TIME_MAX: Duration = Duration::from_secs(5);
/// What may be imported, up to the version.
const IMPORTS: [&str; 8] = [
    "tidewaiter:connector/",
    "wasi:io/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:cli/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/",
];

/// A connector that can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Larger than any connector.
    #[error("connector {name}: {bytes} bytes, more than the {COMPONENT_BYTES_MAX} allowed")]
    TooLarge {
        /// Which.
        name: ConnectorName,
        /// Its size.
        bytes: usize,
    },
    /// It was not compiled: it is not a component, or the compiler failed.
    #[error("connector {name}: {source}")]
    Compile {
        /// Which.
        name: ConnectorName,
        /// Why.
        source: CompileError,
    },
    /// It wants something that no connector has.
    #[error("connector {name}: it imports {import}, which connectors don't have")]
    UnknownImport {
        /// Which.
        name: ConnectorName,
        /// What.
        import: String,
    },
    /// It doesn't keep the contract.
    #[error("connector {name}: it doesn't implement tidewaiter:connector/connector: {problem}")]
    OtherWorld {
        /// Which.
        name: ConnectorName,
        /// In wasmtime's words.
        problem: String,
    },
    /// `describe` failed.
    #[error("connector {name}: describe: {source}")]
    Describe {
        /// Which.
        name: ConnectorName,
        /// How.
        source: Failure,
    },
    /// What it says of itself can't be.
    #[error("connector {name}: {source}")]
    Description {
        /// Which.
        name: ConnectorName,
        /// What.
        source: BadDescription,
    },
}

/// A loaded connector. Clones are the same one.
#[derive(Clone)]
pub struct Connector {
    info: Arc<ConnectorInfo>,
    schema: Arc<SettingsSchema>,
    sha256: Arc<str>,
    component_bytes: u64,
    pub(super) engine: Engine,
    pub(super) pre: ConnectorPre<State>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Connector {
    /// Loads the bytes of a file whose stem is `name`. Takes the time of compiling them, unless they are in the cache.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub async fn load(engine: &Engine, name: &ConnectorName, bytes: &[u8]) -> Result<Self, LoadError> {
        let name = name.clone();
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(LoadError::TooLarge { name, bytes: bytes.len() });
        }
        let compiled = engine.compiler().component(engine, bytes).await;
        let component = compiled.map_err(|source| LoadError::Compile { name: name.clone(), source })?;
        let kind = component.component_type();
        let unknown =
            kind.imports(engine.inner()).find(|(import, _)| !IMPORTS.iter().any(|known| import.starts_with(known)));
        if let Some((import, _)) = unknown {
            return Err(LoadError::UnknownImport { import: import.to_owned(), name });
        }
        let other =
            |error: wasmtime::Error| LoadError::OtherWorld { name: name.clone(), problem: format!("{error:#}") };
        let linker = linker(engine).map_err(other)?;
        let pre = linker.instantiate_pre(&component).and_then(ConnectorPre::new).map_err(other)?;
        let info = describe(engine, &pre).await.map_err(|source| LoadError::Describe { name: name.clone(), source })?;
        info.verify(&name).map_err(|source| LoadError::Description { name: name.clone(), source })?;
        let schema = SettingsSchema::new(&info.settings_schema).map_err(BadDescription::Schema);
        let schema = Arc::new(schema.map_err(|source| LoadError::Description { name: name.clone(), source })?);
        let sha256 = hex(&Sha256::digest(bytes)).into();
        Ok(Self {
            info: Arc::new(info),
            schema,
            sha256,
            component_bytes: bytes.len() as u64,
            engine: engine.clone(),
            pre,
        })
    }

    /// The hash of its file, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it says of itself.
    pub fn info(&self) -> &ConnectorInfo {
        &self.info
    }

    /// Whether it works with these settings.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_settings(&self, settings: &Json) -> Result<(), Vec<SettingsProblem>> {
        self.schema.check(settings)
    }

    /// Settings of its current version, of those that were written for an older one.
    ///
    /// # Errors
    /// It can't, or it is no good.
    pub async fn migrate_settings(&self, from: u32, settings: &str) -> Result<String, Failure> {
        let migrated = alone(&self.engine, &self.pre, async |store, world| {
            world.tidewaiter_connector_descriptor().call_migrate_settings(store, from, settings).await
        });
        migrated.await?.map_err(|error| Failure::Connector(convert::error(error)))
    }

    /// The size of its file.
    pub fn component_bytes(&self) -> u64 {
        self.component_bytes
    }

    /// The limits of each of its instances that are not configured, by name.
    pub fn sandbox(&self) -> Vec<(&'static str, u64)> {
        let mut limits = self.engine.sandbox();
        limits.extend(state::sandbox());
        limits.push(("component-bytes", COMPONENT_BYTES_MAX as u64));
        limits.push(("token-bytes", TOKEN_BYTES_MAX as u64));
        limits
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine.inner());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    files::add_to_linker(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    http::bound(&mut linker)?;
    wit::types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::sync_results::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::search_results::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::settings::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::secrets::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wit::tls::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// A store in which a guest lets others work at every tick.
pub(super) fn store(engine: &Engine, mut state: State, limits: &Limits) -> Store<State> {
    state.live = Some(engine.live());
    let mut store = Store::new(engine.inner(), state);
    store.limiter(|state| &mut state.memory);
    store.epoch_deadline_async_yield_and_update(1);
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(usize::try_from(limits.hostcall_bytes_max()).unwrap_or(usize::MAX));
    store
}

async fn describe(engine: &Engine, pre: &ConnectorPre<State>) -> Result<ConnectorInfo, Failure> {
    let described =
        alone(engine, pre, async |store, world| world.tidewaiter_connector_descriptor().call_describe(store).await);
    described.await.map(convert::info)
}

/// Calls a connector that has no settings, no grants and no network.
async fn alone<T>(
    engine: &Engine,
    pre: &ConnectorPre<State>,
    call: impl AsyncFnOnce(&mut Store<State>, &World) -> wasmtime::Result<T>,
) -> Result<T, Failure> {
    let (limits, gauge) = (Limits::default(), Arc::default());
    let host = |error: wasmtime::Error| Failure::Host { message: error.to_string() };
    let inside = Inside { settings: "{}".into(), ..Inside::default() };
    let state = State::new(inside, &[], GuestLog::new(None, &limits), &limits, &gauge).map_err(host)?;
    let mut store = store(engine, state, &limits);
    let called = async {
        let world = pre.instantiate_async(&mut store).await?;
        call(&mut store, &world).await
    };
    let result = guarded(ALONE_TIME_MAX, &gauge, called).await;
    result.map_err(|error| error.into_failure(&store))
}
