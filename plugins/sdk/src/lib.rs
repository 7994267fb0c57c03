//! Write a Tidewaiter connector in Rust.
//!
//! A connector pulls changes out of one kind of source. You implement [`Connector`], export it, and build a WebAssembly component:
//! `cargo build --release --target wasm32-wasip2`. This one is complete:
//!
//! ```
//! use serde::Deserialize;
//! use tidewaiter_connector::{
//!     Capability, Changes, Connector, Context, Delta, Error, Info, Object, ObjectClass, Operation, SyncOptions,
//!     SyncToken, ValueType,
//! };
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Settings {
//!     /// A folder with `changes.log`: lines `NUMBER LOGIN MAIL`, appended only.
//!     folder: String,
//! }
//!
//! struct Log(Settings);
//! tidewaiter_connector::export!(Log);
//!
//! impl Connector for Log {
//!     type Settings = Settings;
//!
//!     fn describe() -> Info {
//!         Info::new("changelog", env!("CARGO_PKG_VERSION"))
//!             .summary("Accounts out of an append-only log.")
//!             .operations([Operation::LiveSync])
//!             .settings_schema(r#"{"type":"object","properties":{"folder":{"type":"string"}},"required":["folder"]}"#)
//!             .token_format("number")
//!             .needs(Capability::Read("{settings.folder}".into()), "Reads the log.")
//!     }
//!
//!     fn new(settings: Settings) -> Result<Self, Error> {
//!         Ok(Self(settings))
//!     }
//!
//!     fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
//!         Ok(vec![ObjectClass::new("account").with("mail", ValueType::Text)])
//!     }
//!
//!     fn latest_sync_token(&self, _class: &str) -> Result<Option<SyncToken>, Error> {
//!         Ok(self.lines()?.last().map(|(number, _)| (*number).into()))
//!     }
//!
//!     fn sync(
//!         &self,
//!         class: &str,
//!         token: Option<SyncToken>,
//!         _options: &SyncOptions,
//!         changes: &mut Changes,
//!     ) -> Result<Option<SyncToken>, Error> {
//!         let after = token.map_or(Ok(i64::MIN), |token| token.as_integer())?;
//!         for (number, line) in self.lines()?.into_iter().filter(|(number, _)| *number > after) {
//!             let (login, mail) = line.split_once(' ').ok_or_else(|| Error::other(format!("line {number} has no mail")))?;
//!             changes.push(Delta::upsert(class, Object::new(login, login).with("mail", mail)))?;
//!             changes.checkpoint(number)?;
//!         }
//!         Ok(None)
//!     }
//! }
//!
//! impl Log {
//!     fn lines(&self) -> Result<Vec<(i64, String)>, Error> {
//!         let text = std::fs::read_to_string(format!("{}/changes.log", self.0.folder)).context("reading changes.log")?;
//!         let numbered = |line: &str| line.split_once(' ').and_then(|(n, rest)| Some((n.parse().ok()?, rest.to_owned())));
//!         text.lines().map(|line| numbered(line).ok_or_else(|| Error::other(format!("no number in {line:?}")))).collect()
//!     }
//! }
//!
//! # let folder = std::env::temp_dir().join(format!("changelog-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! # std::fs::write(folder.join("changes.log"), "1 ada a@x\n2 bob b@x\n3 ada a@y\n").unwrap();
//! // And this is its test: no host, no WebAssembly.
//! let connection = tidewaiter_connector::testing::Connection::<Log>::new(serde_json::json!({ "folder": folder }));
//! let run = connection.replays_exactly("account", None);
//! assert_eq!(run.deltas().len(), 3);
//! assert_eq!(connection.latest_sync_token("account").unwrap(), Some(3.into()));
//! # std::fs::remove_dir_all(&folder).unwrap();
//! ```
//!
//! - [`Changes`] is where `sync` hands changes over, in batches and with checkpoints. Use [`Changes::ordered`] where changes
//!   share positions, for instance timestamps.
//! - When the host has enough, a push answers [`Stopped`]; `?` ends the call as the contract asks for it.
//! - [`Error`] has the contract's kinds; `?` takes IO and JSON errors, [`Context`] says what was being done.
//! - [`testing`] runs a connector natively, and tests that it replays exactly wherever it is cut.
//!
//! The contract itself, with what makes a connector well-behaved, is `wit/exports.wit`.

pub mod bindings;
pub mod cells;
mod changes;
mod connector;
mod error;
#[doc(hidden)]
pub mod guest;
mod host;
mod info;
pub mod log;
pub mod net;
mod objects;
pub mod secrets;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod values;

pub use bindings::tidewaiter::connector::types::{
    Attribute, AttributeFlags, AttributeInfo, Capability, CapabilityRequest, Change, ChangeFeed, ConnectorInfo as Info,
    ConnectorObject as Object, Deleted, ErrorKind, Filter, ObjectClassInfo as ObjectClass, Operation, Reference,
    Rejection, RejectionCode, SyncDelta as Delta, SyncOptions, SyncToken, Updated, Value, ValueMode, ValueType,
};
pub use changes::{Changes, Ordered, Stopped};
pub use connector::Connector;
pub use error::{Context, Error};
pub use objects::Objects;
pub use values::IntoValues;

/// Makes a [`Connector`] the component's exports. Once, in a crate with `crate-type = ["cdylib"]`; with `"rlib"` in addition,
/// if its tests are in a folder of their own. Natively nothing is exported, so that such a crate links there too.
#[macro_export]
macro_rules! export {
    ($connector:ty) => {
        const _: () = {
            type Exported = $crate::guest::Exported<$connector>;
            #[cfg(target_family = "wasm")]
    $crate::bindings::__export_bindings!(Exported with_types_in $crate::bindings);
            #[cfg(not(target_family = "wasm"))]
            const _: ::core::option::Option<Exported> = $crate::guest::natively::<$connector>();
        };
    };
}
