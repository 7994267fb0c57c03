//! A pass over all objects of a type: what is read is compared with the shadow, and what wasn't read is looked for again. Decides
//! nothing: what is told and what is missing is known to the core's `Pass`; this brings it the rows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewaiter_core::dead_letter::{Feed, Untold};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, SyncDelta};
use tidewaiter_core::run::{Failure, Filter, Reading};
use tidewaiter_core::schema::ObjectClassInfo;
use tidewaiter_core::shadow::{Counts, Form, Index, Pass, Verdict};
use tokio::task::spawn_blocking;

use crate::clock::Clock;
use crate::db::{CommitError, Db, Digester, ReadError, Shadow, ShadowHold, StoredLetter};

/// Objects that are looked for again in one run, and bytes of their uids: between them live sync has its turn.
const MISSING_AT_ONCE: usize = 1000;
const MISSING_BYTES_AT_ONCE: usize = 1024 * 1024;
/// More pages without a new object than that, one after the other, lead nowhere.
const EMPTY_PAGES_MAX: u32 = 100;

/// A shadow that is more entries behind is brought up beside the next pages: entries are kept for it.
const BEHIND_MAX: u64 = 100_000;

/// Objects at fault that are named in the log, each in a line; the rest of a pass is counted.
const LEFT_SHOWN: u32 = 1000;

/// How a pass is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// What reading an object means.
    pub reads: Feed,
    /// Every object is told, and not only those that differ.
    pub full: bool,
    /// Nothing is told.
    pub dry_run: bool,
    /// However many objects are gone, they are told.
    pub allow_deletes: bool,
}

/// A pass under way.
#[derive(Debug)]
pub struct Comparison {
    db: Db,
    clock: Clock,
    hold: ShadowHold,
    class: String,
    manner: Manner,
    /// What is missing can be looked for again.
    again: bool,
    /// Of the token that was held when it began; none: there was none.
    generation: Option<u64>,
    inner: Mutex<Inner>,
    bringing_up: tokio::sync::Mutex<()>,
    /// For who asks while the other one is in use.
    shown: Mutex<Progress>,
    cancelled: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    pass: Pass,
    shadow: Shadow,
    digester: Digester,
    /// A pass came to its end before: what has no row wasn't there.
    knows_all: bool,
    /// Where the page under way begins.
    page: Option<Vec<u8>>,
    /// How many objects had been met when it began.
    met_before: u64,
    empty_pages: u32,
    pages: u64,
    /// How many are missing, once all pages are read; and where to look for more of them.
    missing: Option<(u64, Option<u128>)>,
    /// Objects that there were.
    expected: u64,
    /// Of what is being told, the keys of what is gone.
    gone: Vec<u128>,
    /// Where the pass has the last word, uids of objects of which nothing is told.
    left: HashSet<String>,
    /// How many the log names of those that were left out.
    named: u32,
    /// Dead letters that have nothing to wait for, once the pass is complete.
    settled: Vec<u64>,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Progress {
    /// What it did.
    pub counts: Counts,
    /// Pages that were read to their end.
    pub pages: u64,
    /// Objects that are expected, by what the journal said before.
    pub expected: u64,
}

impl Comparison {
    /// Begins a pass over a class, which nothing else brings up the shadow of meanwhile. `again`: an object can be read by its uid.
    ///
    /// # Errors
    /// The db.
    pub async fn begin(
        (db, clock): (Db, Clock),
        hold: ShadowHold,
        class: &ObjectClassInfo,
        manner: Manner,
        again: bool,
        generation: Option<u64>,
    ) -> Result<Self, CommitError> {
        let shadow = hold.open(Form::of(class)).await?;
        let knows_all = shadow.complete_at().is_some();
        let (shadow, index) = indexed(&db, hold.settle().await?).await?;
        let (digester, expected) = (shadow.digester(), shadow.rows());
        let inner = Inner {
            pass: Pass::new(index),
            shadow,
            digester,
            knows_all,
            page: None,
            met_before: 0,
            empty_pages: 0,
            pages: 0,
            missing: None,
            expected,
            gone: Vec::new(),
            left: HashSet::new(),
            named: 0,
            settled: Vec::new(),
        };
        let (class, inner) = (class.name.clone(), Mutex::new(inner));
        let (shown, bringing_up, cancelled) = Default::default();
        let this = Self { db, clock, hold, class, manner, again, generation, inner, bringing_up, shown, cancelled };
        this.show(&this.inner());
        Ok(this)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it before its next page.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// How it is made.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// Whether what is missing is looked for again before it is told.
    pub fn looks_again(&self) -> bool {
        self.again
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, inner: &Inner) {
        let progress = Progress { counts: inner.pass.counts(), pages: inner.pages, expected: inner.expected };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// What is read first.
    pub fn first(&self) -> Reading {
        Reading { filter: Filter::All, page: None, dry_run: self.manner.dry_run }
    }

    /// A run of its own begins, with nothing of this pass under way: what was told and isn't journaled never will be.
    ///
    /// # Errors
    /// The db.
    pub async fn begin_run(&self) -> Result<(), CommitError> {
        self.bring_up().await?;
        let letters = self.db.read_dead_letters(Some(self.hold.key().clone())).await;
        let letters = letters.map_err(|error| CommitError::Storage(error.to_string()))?;
        let mut inner = self.inner();
        // Live sync goes on with them.
        for uid in letters.iter().flat_map(|stored| stored.letter.uids()) {
            let key = inner.digester.key(uid);
            inner.pass.journaled(key);
        }
        inner.gone.clear();
        if !self.manner.dry_run {
            inner.pass.settle();
        }
        Ok(())
    }

    /// Whether the shadow is far behind, and nobody brings it up.
    pub fn is_behind(&self) -> bool {
        let position = self.inner().shadow.position();
        self.db.last_sequence() > position + BEHIND_MAX && self.bringing_up.try_lock().is_ok()
    }

    /// Brings the shadow up.
    ///
    /// # Errors
    /// The db.
    pub async fn bring_up(&self) -> Result<(), CommitError> {
        let _turn = self.bringing_up.lock().await;
        let shadow = self.hold.bring_up(|key| self.inner().pass.journaled(key)).await?;
        self.inner().shadow = shadow;
        Ok(())
    }

    /// Of objects that were read, those that are told, and as what. Of the others nothing is.
    pub fn judge(&self, deltas: Vec<SyncDelta>, untold: Vec<Untold>) -> Vec<SyncDelta> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        for Untold { uid, problem } in untold {
            let key = inner.digester.key(&uid);
            let is_new = inner.pass.leave(key);
            if let Some(problem) = problem.filter(|_| is_new && inner.named < LEFT_SHOWN) {
                inner.named += 1;
                let TypeKey { connection, object_type } = self.hold.key();
                tracing::warn!(
                    target: "tidewaiter::run", %connection, r#type = %object_type, code = "data-fault", uid, "read, and not told: {problem}"
                );
            }
            // Each has a dead letter: there are no more than there may be of those.
            if self.manner.reads == Feed::Comparison {
                inner.left.insert(uid);
            }
        }
        let mut told = Vec::new();
        for delta in deltas {
            let key = inner.digester.key(delta.change.uid());
            let hash = delta.change.object().and_then(|object| inner.digester.hash(object));
            let verdict = inner.pass.judge(key, hash);
            if self.manner.full {
                told.push(delta);
                continue;
            }
            let SyncDelta { object_class, change, source_time } = delta;
            let Change::CreateOrUpdate { object, previous_uid } = change else { continue };
            let change = match verdict {
                Verdict::Same | Verdict::Newer => continue,
                Verdict::New if inner.knows_all => Change::Create(object),
                // Somebody may not have it.
                Verdict::New | Verdict::Doubted => Change::CreateOrUpdate { object, previous_uid },
                Verdict::Changed => Change::Update { object, previous_uid },
            };
            told.push(SyncDelta { object_class, change, source_time });
        }
        self.show(inner);
        told
    }

    /// What is read next, after `search` answered where the next page begins, or what was missing was looked for. None: that was
    /// all, and the pass is complete.
    ///
    /// # Errors
    /// The pass would never end, or the db.
    pub async fn next(self: &Arc<Self>, answered: Option<Vec<u8>>) -> Result<Option<Reading>, Failure> {
        self.confirm();
        let host = |message: String| Failure::Host { message };
        if let Some(page) = self.page_read(answered)? {
            return Ok(Some(Reading { page: Some(page), ..self.first() }));
        }
        self.bring_up().await.map_err(|error| host(error.to_string()))?;
        let this = Arc::clone(self);
        let missing = spawn_blocking(move || this.missing()).await;
        let missing = missing.map_err(|error| host(error.to_string()))?.map_err(|error| host(error.to_string()))?;
        if let Some(filter) = missing {
            return Ok(Some(Reading { filter, ..self.first() }));
        }
        let TypeKey { connection, object_type } = self.hold.key();
        let Progress { counts, pages, .. } = self.progress();
        tracing::info!(
            target: "tidewaiter::run", %connection, r#type = %object_type, read = counts.read, new = counts.new,
            changed = counts.changed, gone = counts.gone, pages, dry_run = self.manner.dry_run, "pass ended"
        );
        if !self.manner.dry_run {
            let completed = self.hold.complete(self.generation, self.clock.now()).await;
            completed.map_err(|error| host(error.to_string()))?;
        }
        self.settle_letters().await.map_err(|error| host(error.to_string()))?;
        Ok(None)
    }

    /// Where the pass has the last word, it has met whatever dead letters are about: what it hasn't found at fault is mended, or gone.
    async fn settle_letters(&self) -> Result<(), ReadError> {
        if self.manner.reads != Feed::Comparison {
            return Ok(());
        }
        let letters = self.db.read_dead_letters(Some(self.hold.key().clone())).await?;
        let mut inner = self.inner();
        let is_settled = |stored: &&StoredLetter| stored.letter.waits() || !inner.left.contains(&stored.letter.uid);
        let settled = letters.iter().filter(is_settled).map(|stored| stored.number).collect();
        inner.settled = settled;
        Ok(())
    }

    /// Dead letters that are settled by it that the pass is complete.
    pub fn take_settled(&self) -> Vec<u64> {
        std::mem::take(&mut self.inner().settled)
    }

    /// What was said to be gone is journaled, or is on its way there.
    fn confirm(&self) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.gone.drain(..).for_each(|key| inner.pass.gone(key));
        self.show(inner);
    }

    /// A page was read; answers where the next one begins, if there is one.
    fn page_read(&self, answered: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Failure> {
        let mut inner = self.inner();
        if inner.missing.is_some() {
            return Ok(None);
        }
        inner.pages += 1;
        self.show(&inner);
        let met = inner.pass.advanced();
        inner.empty_pages = if met > inner.met_before { 0 } else { inner.empty_pages + 1 };
        inner.met_before = met;
        let message = match &answered {
            None => return Ok(None),
            Some(_) if answered == inner.page => "search answered the position that it was called with".to_owned(),
            Some(_) if inner.empty_pages > EMPTY_PAGES_MAX => {
                format!(
                    "search answered {} pages in a row without an object that was not on one before",
                    inner.empty_pages
                )
            }
            Some(page) => {
                inner.page = Some(page.clone());
                return Ok(answered);
            }
        };
        Err(Failure::Contract { code: "search-has-no-end".into(), message, uid: None })
    }

    /// The next objects that are missing; none: no more.
    fn missing(&self) -> Result<Option<Filter>, ReadError> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.pass.is_complete() {
            return Ok(None);
        }
        let (of, from) = inner.missing.unwrap_or_else(|| (inner.pass.missing(), Some(0)));
        let Some(from) = from.filter(|_| of > 0) else {
            inner.missing = Some((of, None));
            return Ok(None);
        };
        let (mut uids, mut bytes, pass) = (Vec::new(), 0, &inner.pass);
        let next = self.db.scan_shadow(&inner.shadow, from, &mut |_, uid| {
            if pass.misses(uid.key()) {
                if uids.len() == MISSING_AT_ONCE || bytes >= MISSING_BYTES_AT_ONCE {
                    return Ok(false);
                }
                let uid = uid.reveal()?;
                bytes += uid.len();
                uids.push(uid);
            }
            Ok(true)
        })?;
        inner.missing = Some((of, next));
        let (found, allowed) = (inner.pass.counts().read, self.manner.allow_deletes);
        Ok((!uids.is_empty()).then_some(Filter::Missing { uids, of, found, allowed }))
    }

    /// Of objects that were looked for again, those that are gone, as they are told. The others, and what live sync told of meanwhile, are not.
    ///
    /// # Errors
    /// The db.
    pub async fn gone(&self, uids: Vec<String>) -> Result<Vec<SyncDelta>, CommitError> {
        self.bring_up().await?;
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.gone.clear();
        let mut gone = Vec::new();
        for uid in uids {
            let key = inner.digester.key(&uid);
            if inner.pass.misses(key) {
                inner.gone.push(key);
                let change = Change::Delete { uid, name: None, last_known: None };
                gone.push(SyncDelta { object_class: self.class.clone(), change, source_time: None });
            }
        }
        Ok(gone)
    }
}

/// A shadow and its rows, as a pass has them.
async fn indexed(db: &Db, shadow: Shadow) -> Result<(Shadow, Index), CommitError> {
    let db = db.clone();
    let read = spawn_blocking(move || {
        let mut index = Index::with_capacity(shadow.rows());
        db.scan_shadow(&shadow, 0, &mut |hash, uid| {
            index.push(uid.key(), hash);
            Ok(true)
        })?;
        Ok::<_, ReadError>((shadow, index))
    });
    let failed = |error: String| CommitError::Storage(error);
    read.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
