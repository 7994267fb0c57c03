//! What the host gives a connector beside WASI: where changes go, settings, secrets, the log, TLS.

use tidewaiter_core::dead_letter::{DeadLetter, Sorted};
use tidewaiter_core::inspect::{Inspected, Rejection, RejectionCode};
use tidewaiter_core::object::{Change, ConnectorObject, SyncDelta};
use tidewaiter_core::token::SyncToken;
use tokio::sync::oneshot;
use tracing::Level;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::bindings::tidewaiter::connector as wit;
use super::convert;
use super::failure::NeedsTls;
use super::state::{Compare, FromGuest, Reveal, RevealRefusal, State};
use super::tls;

type Answer<T> = wasmtime::Result<T>;

fn outside(what: &str) -> wit::types::Rejection {
    convert::rejection(Rejection {
        code: RejectionCode::NotInSync,
        message: format!("{what} outside the call it belongs to"),
        delta_index: None,
        uid: None,
    })
}

impl wit::sync_results::Host for State {
    async fn emit(
        &mut self,
        deltas: Vec<wit::types::SyncDelta>,
        checkpoint: Option<wit::types::SyncToken>,
    ) -> Answer<Result<wit::sync_results::Flow, wit::types::Rejection>> {
        if self.lacks_tls() {
            return Err(wasmtime::Error::new(NeedsTls));
        }
        let Some(run) = &mut self.run else { return Ok(Err(outside("emit"))) };
        if run.inspector.class_searched().is_some() {
            return Ok(Err(convert::rejection(run.inspector.refuse("sync-results.emit"))));
        }
        let deltas = deltas.into_iter().map(convert::delta).collect();
        let checkpoint = checkpoint.map(convert::token);
        self.take_over(deltas, checkpoint).await
    }

    async fn flush(&mut self) -> Answer<Result<(), wit::types::Rejection>> {
        let Some(run) = &mut self.run else { return Ok(Err(outside("flush"))) };
        if let Err(rejection) = run.inspector.flush() {
            return Ok(Err(convert::rejection(rejection)));
        }
        let (answer, durable) = oneshot::channel();
        let asked = run.to_run.send(FromGuest::Flush(answer)).await.is_ok();
        if asked && durable.await.unwrap_or(false) {
            return Ok(Ok(()));
        }
        let message = "not durable: acknowledge nothing".to_owned();
        let code = RejectionCode::NotDurable;
        Ok(Err(convert::rejection(Rejection { code, message, delta_index: None, uid: None })))
    }
}

impl State {
    /// Inspects what was handed over, and sends it to the run.
    async fn take_over(
        &mut self,
        mut deltas: Vec<SyncDelta>,
        checkpoint: Option<SyncToken>,
    ) -> Answer<Result<wit::sync_results::Flow, wit::types::Rejection>> {
        let Some(run) = &mut self.run else { return Ok(Err(outside("emit"))) };
        self.memory.gauge.token(checkpoint.as_ref());
        let Inspected { mut bytes, faults } = match run.inspect(&deltas, checkpoint.as_ref()).await {
            Ok(inspected) => inspected,
            Err(rejection) => return Ok(Err(convert::rejection(rejection))),
        };
        if deltas.is_empty() && checkpoint.is_none() {
            return Ok(Ok(if run.stops() { wit::sync_results::Flow::Stop } else { wit::sync_results::Flow::Proceed }));
        }
        self.memory.gauge.handed_over(deltas.len() as u64, bytes, run.inspector.largest());
        // They come in the order of the source.
        self.memory.gauge.of_time(deltas.last().and_then(SyncDelta::changed_at));
        // Whatever the connector made of the wish.
        if let Some(wanted) = &run.attributes {
            deltas.iter_mut().for_each(|delta| delta.keep_only(wanted));
        }
        if !deltas.is_empty() {
            run.know_held().await.map_err(wasmtime::Error::msg)?;
        }
        let sorted = match run.sort(deltas, faults) {
            Ok(sorted) => sorted,
            Err(rejection) => return Ok(Err(convert::rejection(rejection))),
        };
        let Sorted { passed: mut deltas, kept, resolved, untold } = sorted;
        if let Some(Compare(compare)) = run.compare.as_ref().filter(|_| run.inspector.class_searched().is_some()) {
            deltas = compare(deltas, untold);
            bytes = deltas.iter().map(|delta| delta.size() as u64).sum();
        }
        bytes += kept.iter().filter(|letter| !letter.waits()).map(DeadLetter::size).sum::<u64>();
        let told = !deltas.is_empty() || !kept.is_empty() || !resolved.is_empty() || checkpoint.is_some();
        let packed = (run.pack)(&deltas).map_err(wasmtime::Error::msg)?;
        // Not held while it waits for its turn.
        drop(deltas);
        // A run that is gone wants no more.
        let gone = told
            && run.to_run.send(FromGuest::Batch { deltas: packed, kept, resolved, bytes, checkpoint }).await.is_err();
        Ok(Ok(match gone || run.stops() {
            true => wit::sync_results::Flow::Stop,
            false => wit::sync_results::Flow::Proceed,
        }))
    }
}

impl wit::search_results::Host for State {
    async fn emit(
        &mut self,
        objects: Vec<wit::types::ConnectorObject>,
    ) -> Answer<Result<wit::sync_results::Flow, wit::types::Rejection>> {
        if self.lacks_tls() {
            return Err(wasmtime::Error::new(NeedsTls));
        }
        let Some(run) = &mut self.run else { return Ok(Err(outside("search-results.emit"))) };
        let Some(class) = run.inspector.class_searched() else {
            return Ok(Err(convert::rejection(run.inspector.refuse("search-results.emit"))));
        };
        let deltas = objects.into_iter().map(|object| read(class.clone(), convert::object(object))).collect();
        self.take_over(deltas, None).await
    }
}

/// What an object that was read says: that it is there, and how it is.
fn read(object_class: String, object: ConnectorObject) -> SyncDelta {
    SyncDelta { object_class, change: Change::CreateOrUpdate { object, previous_uid: None }, source_time: None }
}

impl wit::settings::Host for State {
    async fn get(&mut self) -> Answer<String> {
        Ok(self.settings.clone())
    }
}

impl wit::secrets::Host for State {
    async fn reveal(&mut self, name: String) -> Answer<Result<Vec<u8>, wit::secrets::Refusal>> {
        let Some(Reveal(reveal)) = &self.reveal else { return Ok(Err(wit::secrets::Refusal::NotGranted)) };
        Ok(reveal(name).await.map_err(|refusal| match refusal {
            RevealRefusal::Unknown => wit::secrets::Refusal::Unknown,
            RevealRefusal::NotGranted => wit::secrets::Refusal::NotGranted,
        }))
    }
}

impl wit::log::Host for State {
    async fn log(&mut self, level: wit::log::Level, message: String) -> Answer<()> {
        let level = match level {
            wit::log::Level::Trace => Level::TRACE,
            wit::log::Level::Debug => Level::DEBUG,
            wit::log::Level::Info => Level::INFO,
            wit::log::Level::Warn => Level::WARN,
            wit::log::Level::Error => Level::ERROR,
        };
        self.log.line(level, "log", &message);
        Ok(())
    }
}

impl wit::tls::Host for State {
    async fn upgrade(
        &mut self,
        server_name: String,
        input: Resource<DynInputStream>,
        output: Resource<DynOutputStream>,
    ) -> Answer<Result<tls::Streams, wit::tls::TlsError>> {
        tls::upgrade(self, &server_name, (input, output)).await
    }
}

impl wit::types::Host for State {}
