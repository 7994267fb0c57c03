//! The instance that lives for one run, and the calls into it. After a trap, or a call that took too long, it is dead.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tidewaiter_core::dead_letter::{DataFaults, Feed};
use tidewaiter_core::inspect::Inspector;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::run::Failure;
use tidewaiter_core::schema::{Classes, ObjectClassInfo};
use tidewaiter_core::token::{SyncToken, TOKEN_BYTES_MAX};
use tokio::sync::mpsc;
use wasmtime::Store;

use super::bindings::Connector as World;
use super::bindings::tidewaiter::connector::types as wit;
use super::failure::NeedsTls;
use super::gauge::Gauge;
use super::load::{self, Connector};
use super::log::{GuestLog, LogSource};
use super::state::{ClassReader, Compare, FromGuest, Inside, Pack, ReadGrant, ReadHeld, Reveal, RunLink, State};
use super::{convert, failure};
use crate::clock::Clock;
use crate::egress::Outgoing;

/// What an instance is given.
#[derive(Debug)]
pub struct Setup {
    /// One JSON object.
    pub settings_json: String,
    /// Folders that it may read.
    pub grants: Vec<ReadGrant>,
    /// The classes of the source, if they are known already.
    pub classes: Option<Arc<Classes>>,
    /// Reads them again where they turn out to be out of date.
    pub class_reader: Option<ClassReader>,
    /// Its limits.
    pub limits: Limits,
    /// Set: its next `emit` is answered `stop`.
    pub stop: Arc<AtomicBool>,
    /// Where what it hands over goes.
    pub to_run: mpsc::Sender<FromGuest>,
    /// How deltas are packed for it.
    pub pack: Pack,
    /// How objects that were read are.
    pub pack_read: Pack,
    /// What becomes of objects that it reads; none: all are told.
    pub compare: Option<Compare>,
    /// What reading them means.
    pub reads: Feed,
    /// What becomes of deltas whose data is at fault.
    pub data_faults: DataFaults,
    /// Reads what is kept out of the journal of its type.
    pub read_held: ReadHeld,
    /// Its way out over HTTP; none: it has none.
    pub outgoing: Option<Arc<Outgoing>>,
    /// Shows it secrets; none: there are none.
    pub reveal: Option<Reveal>,
    /// What it uses.
    pub gauge: Arc<Gauge>,
    /// Whose log its words are in.
    pub log: LogSource,
}

/// How `sync` is to be done; the contract's `sync-options`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "documented in wit/types.wit")]
pub struct SyncOptions {
    pub attributes: Option<Vec<String>>,
    pub page_size: u32,
    pub deadline_ms: u64,
    pub dry_run: bool,
    pub batch_count_max: u32,
    pub batch_bytes_max: u64,
    pub object_bytes_max: u64,
    pub extra: Vec<(String, String)>,
}

/// A live instance.
pub struct Session {
    store: Store<State>,
    world: World,
    limits: Limits,
    gauge: Arc<Gauge>,
    dead: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("dead", &self.dead).finish_non_exhaustive()
    }
}

/// Why a call did not come back with an answer.
pub(super) enum Ended {
    /// `waiting`: in a host call, which was abandoned.
    TooLong {
        max: Duration,
        waiting: bool,
    },
    Trapped(wasmtime::Error),
}

impl Ended {
    pub(super) fn into_failure(self, store: &Store<State>) -> Failure {
        match self {
            Self::TooLong { max, waiting } => {
                let place = if waiting { ", and waited in a host call, which is abandoned" } else { "" };
                let message = format!("a call took longer than the {} ms allowed{place}", max.as_millis());
                Failure::Trapped { code: "limit.call-time".into(), message }
            }
            Self::Trapped(error) => {
                let memory = &store.data().memory;
                failure::classify(&error, memory.refused.then_some(memory.max))
            }
        }
    }
}

/// A call, for no longer than that, host calls included.
pub(super) async fn guarded<T>(
    max: Duration,
    gauge: &Gauge,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Ended> {
    let clock = Clock::start();
    let ended = tokio::time::timeout(max, gauge.timed(call)).await;
    let waiting = ended.is_err() && gauge.waits();
    gauge.called(clock.moment().0, waiting);
    match ended {
        Err(_) => Err(Ended::TooLong { max, waiting }),
        Ok(result) => result.map_err(Ended::Trapped),
    }
}

/// Calls an export of an interface, in the one way in which all are called.
macro_rules! call {
    ($session:ident, $interface:ident . $function:ident ( $($argument:expr),* )) => {{
        $session.alive()?;
        let Session { store, world, limits, gauge, .. } = &mut *$session;
        let result = guarded(limits.call_time_max, gauge, world.$interface().$function(&mut *store, $($argument),*)).await;
        $session.answered(result)
    }};
}

impl Session {
    /// Starts an instance.
    ///
    /// # Errors
    /// A granted folder can't be opened, or the start trapped.
    pub async fn start(connector: &Connector, setup: Setup) -> Result<Self, Failure> {
        let Setup { settings_json, grants, classes, class_reader, limits, stop, to_run, .. } = setup;
        let (pack, pack_read, compare, reads) = (setup.pack, setup.pack_read, setup.compare, setup.reads);
        let (outgoing, reveal, gauge, log) = (setup.outgoing, setup.reveal, setup.gauge, setup.log);
        if let Some(outgoing) = &outgoing {
            gauge.watch(Arc::clone(outgoing));
        }
        let inspector = Inspector::new(classes.unwrap_or_default(), limits, setup.data_faults);
        let (held, read_held, attributes) = (None, setup.read_held, None);
        let link = RunLink {
            inspector,
            class_reader,
            limits,
            held,
            read_held,
            stop,
            to_run,
            pack,
            pack_read,
            compare,
            reads,
            attributes,
        };
        let guest_log = GuestLog::new(Some((log, Arc::clone(&gauge))), &limits);
        let inside = Inside { settings: settings_json, run: Some(link), outgoing, reveal };
        let state = State::new(inside, &grants, guest_log, &limits, &gauge).map_err(|error| {
            let message = format!("a granted folder: {error:#}");
            Failure::Host { message }
        })?;
        let mut store = load::store(&connector.engine, state, &limits);
        let world = guarded(limits.call_time_max, &gauge, connector.pre.instantiate_async(&mut store)).await;
        match world {
            Ok(world) => Ok(Self { store, world, limits, gauge, dead: false }),
            Err(ended) => Err(ended.into_failure(&store)),
        }
    }

    /// The classes that deltas are inspected against from now on.
    pub fn set_classes(&mut self, classes: Arc<Classes>) {
        if let Some(run) = &mut self.store.data_mut().run {
            run.inspector.renew(classes);
        }
    }

    /// `object-classes`.
    ///
    /// # Errors
    /// The connector's, or it trapped.
    pub async fn object_classes(&mut self) -> Result<Vec<ObjectClassInfo>, Failure> {
        let answer = call!(self, tidewaiter_connector_schema.call_object_classes())?;
        let classes = answer.map_err(|error| Failure::Connector(convert::error(error)))?;
        Ok(classes.into_iter().map(convert::class).collect())
    }

    /// `check`.
    ///
    /// # Errors
    /// The connector's, or it trapped.
    pub async fn check(&mut self) -> Result<(), Failure> {
        let answer = call!(self, tidewaiter_connector_check.call_check())?;
        answer.map_err(|error| Failure::Connector(convert::error(error)))
    }

    /// `get-latest-sync-token`.
    ///
    /// # Errors
    /// The connector's, it trapped, or the token is too large.
    pub async fn latest(&mut self, class: &str) -> Result<Option<SyncToken>, Failure> {
        let answer = call!(self, tidewaiter_connector_live_sync.call_get_latest_sync_token(class))?;
        self.kept(answer)
    }

    /// `sync`. What it hands over goes to the run while it is being called.
    ///
    /// # Errors
    /// As `latest`, or it broke the contract.
    pub async fn sync(
        &mut self,
        class: &str,
        token: Option<SyncToken>,
        options: SyncOptions,
    ) -> Result<Option<SyncToken>, Failure> {
        if let Some(run) = &mut self.store.data_mut().run {
            run.inspector.open(class);
            run.attributes.clone_from(&options.attributes);
        }
        let token = token.map(convert::to_token);
        let options = to_options(options);
        let answer = call!(self, tidewaiter_connector_live_sync.call_sync(class, token.as_ref(), &options));
        let rejection = self.store.data_mut().run.as_mut().and_then(|run| run.inspector.close());
        match rejection {
            Some(rejection) => Err(rejection.into()),
            None => self.kept(answer?),
        }
    }

    /// `search`, of all objects or the one with a uid. The objects go to the run while it is being called. Answers the position of the next page, if there is one.
    ///
    /// # Errors
    /// As `sync`; or the position is too large.
    pub async fn search(
        &mut self,
        class: &str,
        uid: Option<&str>,
        page: Option<Vec<u8>>,
        options: SyncOptions,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let filter = uid.map_or(wit::Filter::All, |uid| wit::Filter::ByUid(uid.to_owned()));
        if let Some(run) = &mut self.store.data_mut().run {
            run.inspector.open_search(class, uid, run.reads == Feed::Wanted);
            run.attributes.clone_from(&options.attributes);
            run.pack = run.pack_read;
        }
        let options = to_options(options);
        let answer = call!(self, tidewaiter_connector_search.call_search(class, &filter, page.as_deref(), &options));
        let rejection = self.store.data_mut().run.as_mut().and_then(|run| run.inspector.close());
        if let Some(rejection) = rejection {
            return Err(rejection.into());
        }
        let next = answer?.map_err(|error| Failure::Connector(convert::error(error)))?;
        match next {
            _ if self.store.data().lacks_tls() => Err(NeedsTls.failure()),
            Some(next) if next.len() > TOKEN_BYTES_MAX => {
                let message = format!("a position of {} bytes; at most {TOKEN_BYTES_MAX} are taken", next.len());
                Err(Failure::Contract { code: "position-too-large".into(), message, uid: None })
            }
            next => Ok(next),
        }
    }

    /// Whether the connector was answered `stop`.
    pub fn was_stopped(&self) -> bool {
        self.store.data().run.as_ref().is_some_and(|run| run.inspector.is_stopped())
    }

    fn alive(&self) -> Result<(), Failure> {
        match self.dead {
            false => Ok(()),
            true => Err(Failure::Host { message: "the instance is dead after an earlier call".into() }),
        }
    }

    fn answered<T>(&mut self, result: Result<T, Ended>) -> Result<T, Failure> {
        self.store.data_mut().count_resources();
        result.map_err(|ended| {
            self.dead = true;
            ended.into_failure(&self.store)
        })
    }

    /// The token of an answer, if the run may keep it.
    fn kept(&self, answer: Result<Option<wit::SyncToken>, wit::ConnectorError>) -> Result<Option<SyncToken>, Failure> {
        let token = answer.map_err(|error| Failure::Connector(convert::error(error)))?.map(convert::token);
        self.gauge.token(token.as_ref());
        match token {
            _ if self.store.data().lacks_tls() => Err(NeedsTls.failure()),
            Some(token) if token.size() > TOKEN_BYTES_MAX => {
                let message = format!("a token of {} bytes; at most {TOKEN_BYTES_MAX} are kept", token.size());
                Err(Failure::Contract { code: "token-too-large".into(), message, uid: None })
            }
            token => Ok(token),
        }
    }
}

fn to_options(options: SyncOptions) -> wit::SyncOptions {
    let SyncOptions { attributes, page_size, deadline_ms, dry_run, .. } = options;
    let SyncOptions { batch_count_max, batch_bytes_max, object_bytes_max, extra, .. } = options;
    wit::SyncOptions {
        attributes,
        page_size,
        deadline_ms,
        dry_run,
        batch_count_max,
        batch_bytes_max,
        object_bytes_max,
        extra,
    }
}
