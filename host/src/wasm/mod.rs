//! wasmtime lives here, and only here: the engine, the loading of connectors, and the instance that lives for one run. It knows no
//! db, no schedule and no sink; what a connector hands over goes through the core's inspector and then into a channel.

mod bindings;
mod cache;
mod compile;
mod convert;
mod engine;
mod failure;
mod files;
mod gauge;
mod http;
mod imports;
mod instance;
mod load;
mod log;
mod schema;
mod sockets;
mod state;
mod tls;

pub use compile::{CompileError, child as compiler};
pub use engine::{Allocation, Engine, EngineOptions, VERSION as ENGINE_VERSION};
pub use gauge::Gauge;
pub use instance::{Session, Setup, SyncOptions};
pub(crate) use load::COMPONENT_BYTES_MAX;
pub use load::{Connector, LoadError};
pub use log::LogSource;
pub use schema::SettingsProblem;
pub(crate) use schema::SettingsSchema;
pub use state::{
    ClassReader, Compare, FromGuest, Pack, ReadGrant, ReadHeld, ReadingClasses, ReadingHeld, Reveal, RevealRefusal,
    Revealing,
};
