//! The host's side of the contract, as plain functions. The only place that knows whether there is a host at all: in a
//! component the calls go out through the bindings, natively they go to the recorder of [`crate::testing`].

use crate::bindings::tidewaiter::connector::{log, secrets, sync_results};
use crate::{Delta, Object, Rejection, SyncToken};

pub(crate) use sync_results::Flow;

#[cfg(target_family = "wasm")]
mod there {
    use super::*;
    use crate::bindings::tidewaiter::connector::{search_results, settings};

    pub(crate) fn emit(deltas: &[Delta], checkpoint: Option<&SyncToken>) -> Result<Flow, Rejection> {
        sync_results::emit(deltas, checkpoint)
    }

    pub(crate) fn flush() -> Result<(), Rejection> {
        sync_results::flush()
    }

    pub(crate) fn emit_objects(objects: &[Object]) -> Result<Flow, Rejection> {
        search_results::emit(objects)
    }

    pub(crate) fn settings() -> String {
        settings::get()
    }

    pub(crate) fn reveal(name: &str) -> Result<Vec<u8>, secrets::Refusal> {
        secrets::reveal(name)
    }

    pub(crate) fn log(level: log::Level, message: &str) {
        log::log(level, message);
    }
}

#[cfg(not(target_family = "wasm"))]
mod there {
    use super::*;
    use crate::testing::recorder::with;

    pub(crate) fn emit(deltas: &[Delta], checkpoint: Option<&SyncToken>) -> Result<Flow, Rejection> {
        with(|recorder| recorder.emit(deltas, checkpoint))
    }

    pub(crate) fn flush() -> Result<(), Rejection> {
        with(|recorder| recorder.flush())
    }

    pub(crate) fn emit_objects(objects: &[Object]) -> Result<Flow, Rejection> {
        with(|recorder| recorder.emit_objects(objects))
    }

    pub(crate) fn settings() -> String {
        with(|recorder| recorder.settings.clone())
    }

    pub(crate) fn reveal(name: &str) -> Result<Vec<u8>, secrets::Refusal> {
        with(|recorder| recorder.reveal(name))
    }

    pub(crate) fn log(level: log::Level, message: &str) {
        with(|recorder| recorder.log.push((level, message.to_owned())));
    }
}

pub(crate) use there::*;
