//! Running a connector natively, against a host that only records. Owns the test of the contract that can be made without
//! knowing the source: [`Connection::replays_exactly`].
//!
//! The crate's documentation ends with an example.

pub(crate) mod recorder;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::bindings::exports::tidewaiter::connector::{check, live_sync, schema, search};
use crate::guest::Exported;
use crate::log::Level;
use crate::{Connector, Delta, Error, Filter, Object, ObjectClass, SyncOptions, SyncToken};
pub use recorder::Emit;
use recorder::Recorder;

/// A connector with settings. Each call runs through the same exports as in a component.
#[derive(Debug)]
pub struct Connection<C> {
    settings: String,
    secrets: BTreeMap<String, Vec<u8>>,
    options: SyncOptions,
    stop_after: Option<usize>,
    connector: PhantomData<fn() -> C>,
}

/// One call of `sync`, as the host saw it.
#[derive(Debug)]
pub struct Run {
    /// The token that it began with.
    pub from: Option<SyncToken>,
    /// What was handed over, batch by batch.
    pub emits: Vec<Emit>,
    /// What `sync` answered. A broken contract is an error here, as it is for the host.
    pub outcome: Result<Option<SyncToken>, Error>,
    /// The host asked to stop.
    pub stopped: bool,
    /// What was logged.
    pub log: Vec<(Level, String)>,
}

impl<C: Connector> Connection<C> {
    /// With these settings, no secrets, and the contract's smallest limits.
    pub fn new(settings: serde_json::Value) -> Self {
        Self {
            settings: settings.to_string(),
            secrets: BTreeMap::new(),
            options: SyncOptions {
                attributes: None,
                page_size: 100,
                deadline_ms: 60_000,
                dry_run: false,
                batch_count_max: 256,
                batch_bytes_max: 1 << 20,
                object_bytes_max: 256 << 10,
                extra: Vec::new(),
            },
            stop_after: None,
            connector: PhantomData,
        }
    }

    /// With a secret that is granted.
    #[must_use]
    pub fn secret(mut self, name: &str, secret: impl Into<Vec<u8>>) -> Self {
        self.secrets.insert(name.to_owned(), secret.into());
        self
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut SyncOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// In batches of at most so many, so that there are more places to cut at.
    #[must_use]
    pub fn batches_of(self, count: u32) -> Self {
        self.options(|options| options.batch_count_max = count)
    }

    /// The host answers `stop` to this emit, counted from 1.
    #[must_use]
    pub fn stop_after(mut self, emits: usize) -> Self {
        self.stop_after = Some(emits);
        self
    }

    /// Calls `object-classes`.
    pub fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
        let call = <Exported<C> as schema::Guest>::object_classes;
        Ok(self.record(call).1?)
    }

    /// Calls `check`.
    pub fn check(&self) -> Result<(), Error> {
        Ok(self.record(<Exported<C> as check::Guest>::check).1?)
    }

    /// Calls `get-latest-sync-token`.
    pub fn latest_sync_token(&self, class: &str) -> Result<Option<SyncToken>, Error> {
        let call = || <Exported<C> as live_sync::Guest>::get_latest_sync_token(class.to_owned());
        Ok(self.record(call).1?)
    }

    /// Calls `sync`.
    pub fn sync(&self, class: &str, token: Option<SyncToken>) -> Run {
        self.sync_until(self.stop_after, class, token)
    }

    fn sync_until(&self, stop_after: Option<usize>, class: &str, token: Option<SyncToken>) -> Run {
        let call = || {
            let (class, token, options) = (class.to_owned(), token.clone(), self.options.clone());
            <Exported<C> as live_sync::Guest>::sync(class, token, options)
        };
        let (recorder, outcome) = self.record_until(stop_after, call);
        let outcome = match &recorder.rejection {
            Some(rejection) => Err(rejection.clone().into()),
            None => outcome.map_err(Error::from),
        };
        let run =
            Run { from: token.clone(), emits: recorder.emits, outcome, stopped: recorder.stopped, log: recorder.log };
        run.checked()
    }

    /// Calls `search` page by page.
    pub fn search(&self, class: &str, filter: Filter) -> Result<Vec<Object>, Error> {
        let mut objects = Vec::new();
        let mut page = None;
        loop {
            let call = || {
                let (class, options) = (class.to_owned(), self.options.clone());
                <Exported<C> as search::Guest>::search(class, filter.clone(), page.take(), options)
            };
            let (recorder, next) = self.record(call);
            objects.extend(recorder.objects);
            page = next?;
            if page.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Asserts that `sync` gives the same changes in the same order when it is called again, when it is resumed from any of its
    /// checkpoints, and when it is stopped after any emit and resumed from the last checkpoint: nothing lost, nothing
    /// repeated. And that the token at the end has nothing after it. Answers the uncut run.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn replays_exactly(&self, class: &str, token: Option<SyncToken>) -> Run {
        let whole = self.sync(class, token.clone());
        if let Err(error) = &whole.outcome {
            panic!("the uncut run failed: {error}");
        }
        let all = whole.deltas();
        let again = self.sync(class, token.clone());
        assert_eq!(all, again.deltas(), "a second call from the same token gave something else");

        for cut in 1..=whole.emits.len() {
            let checkpoint = whole.emits[..cut].iter().rev().find_map(|emit| emit.checkpoint.clone());
            let Some(checkpoint) = checkpoint else {
                continue;
            };
            let kept = kept(&whole.emits[..cut]);
            let rest = self.sync(class, Some(checkpoint));
            assert_eq!(all[kept..], rest.deltas(), "resumed from the checkpoint of emit {cut}");

            let stopped = self.sync_until(Some(cut), class, token.clone());
            assert!(stopped.stopped, "emit {cut} was not made a second time");
            let mut pieces: Vec<_> = stopped.journaled().into_iter().cloned().collect();
            let rest = self.sync(class, stopped.token());
            pieces.extend(rest.deltas().into_iter().cloned());
            assert_eq!(all, pieces.iter().collect::<Vec<_>>(), "stopped after emit {cut} and resumed");
        }
        if whole.token().is_some() {
            let after = self.sync(class, whole.token());
            assert_eq!(after.deltas(), Vec::<&Delta>::new(), "after the last token");
        }
        whole
    }

    fn record<T>(&self, call: impl FnOnce() -> T) -> (Recorder, T) {
        self.record_until(self.stop_after, call)
    }

    fn record_until<T>(&self, stop_after: Option<usize>, call: impl FnOnce() -> T) -> (Recorder, T) {
        let recorder = Recorder {
            settings: self.settings.clone(),
            secrets: self.secrets.clone(),
            limits: Some(self.options.clone()),
            stop_after,
            ..Recorder::default()
        };
        recorder::during(recorder, call)
    }
}

impl Run {
    /// Everything that was handed over.
    pub fn deltas(&self) -> Vec<&Delta> {
        self.emits.iter().flat_map(|emit| &emit.deltas).collect()
    }

    /// What the host keeps: everything that a checkpoint or the returned token covers.
    pub fn journaled(&self) -> Vec<&Delta> {
        let mut deltas = self.deltas();
        if self.stopped || !matches!(self.outcome, Ok(Some(_))) {
            deltas.truncate(kept(&self.emits));
        }
        deltas
    }

    /// The token that the host holds afterwards.
    pub fn token(&self) -> Option<SyncToken> {
        let returned = match &self.outcome {
            Ok(token) if !self.stopped => token.clone(),
            _ => None,
        };
        let mut checkpoints = self.emits.iter().rev();
        returned.or_else(|| checkpoints.find_map(|emit| emit.checkpoint.clone())).or_else(|| self.from.clone())
    }

    /// The host's last rule: what neither a checkpoint nor the returned token covers fails the run.
    fn checked(mut self) -> Self {
        if !self.stopped && self.outcome.is_ok() && self.journaled().len() < self.deltas().len() {
            self.outcome = Err(Error::internal("deltas that neither a checkpoint nor the returned token covers"));
        }
        self
    }
}

/// How many deltas the checkpoints of these emits cover.
fn kept(emits: &[Emit]) -> usize {
    let covered = emits.iter().rposition(|emit| emit.checkpoint.is_some()).map_or(0, |last| last + 1);
    emits[..covered].iter().map(|emit| emit.deltas.len()).sum()
}
