//! Handing changes over: [`Changes`], and [`Ordered`] for sources whose changes have a position. Owns the batches and where a
//! checkpoint may stand; it may not look into a token.

use crate::{Delta, Error, Rejection, SyncOptions, SyncToken, host};

/// A batch of this many is handed over at the next checkpoint.
const AIM_COUNT: u32 = 256;
/// A batch of this size is handed over at the next checkpoint.
const AIM_BYTES: u64 = 1 << 20;

/// The host takes no more. Hand it on with `?`: the call then ends as the contract asks for it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Stopped(Option<Rejection>);

impl Stopped {
    /// None: the host asked to stop, which is not a failure. Some: it refused what it was handed, and the run has failed.
    pub fn rejection(&self) -> Option<&Rejection> {
        self.0.as_ref()
    }
}

/// Where `sync` hands changes over, in the order of the source.
///
/// Deltas are gathered to batches; a **checkpoint** applies to everything pushed before it. Give one wherever calling `sync`
/// with that token would give exactly what comes after: consecutive checkpoints cost nothing, only the last one of a
/// batch is handed over.
///
/// ```
/// # use tidewaiter_connector::{Changes, Delta, Error, Object};
/// # struct Event { number: i64, login: String }
/// # fn sync(events: Vec<Event>, changes: &mut Changes) -> Result<(), Error> {
/// for event in events {
///     changes.push(Delta::upsert("account", Object::new(&event.login, &event.login)))?;
///     changes.checkpoint(event.number)?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Changes {
    count_max: usize,
    bytes_max: u64,
    aim_count: usize,
    aim_bytes: u64,
    batch: Vec<Delta>,
    bytes: u64,
    checkpoint: Option<Checkpoint>,
    ended: Option<Stopped>,
}

/// A resume point inside the batch: after its first `count` deltas, which have `bytes`.
#[derive(Debug)]
struct Checkpoint {
    count: usize,
    bytes: u64,
    token: SyncToken,
}

impl Changes {
    pub(crate) fn new(options: &SyncOptions) -> Self {
        let count_max = options.batch_count_max.max(1);
        Self {
            count_max: count_max as usize,
            bytes_max: options.batch_bytes_max,
            aim_count: AIM_COUNT.min(count_max) as usize,
            // Reached before a batch is full, so that checkpoints are.
            aim_bytes: AIM_BYTES.min(options.batch_bytes_max / 2),
            batch: Vec::new(),
            bytes: 0,
            checkpoint: None,
            ended: None,
        }
    }

    /// Hands one change over.
    pub fn push(&mut self, delta: Delta) -> Result<(), Stopped> {
        self.going_on()?;
        let size = delta.size();
        while !self.batch.is_empty() && (self.batch.len() >= self.count_max || self.bytes + size > self.bytes_max) {
            self.make_room()?;
        }
        self.bytes += size;
        self.batch.push(delta);
        Ok(())
    }

    /// `sync` may resume right after what was pushed so far, with this token. Nothing at or before it may be still to come.
    pub fn checkpoint(&mut self, token: impl Into<SyncToken>) -> Result<(), Stopped> {
        self.going_on()?;
        self.checkpoint = Some(Checkpoint { count: self.batch.len(), bytes: self.bytes, token: token.into() });
        if self.is_due() {
            self.hand_over()?;
        }
        Ok(())
    }

    /// The same for tokens that take work to make: `token` is called only when the batch is big enough to be handed over, and
    /// may still answer that there is no resume point here.
    pub fn checkpoint_when_due<T: Into<SyncToken>>(
        &mut self,
        token: impl FnOnce() -> Option<T>,
    ) -> Result<(), Stopped> {
        if self.is_due()
            && let Some(token) = token()
        {
            return self.checkpoint(token);
        }
        self.going_on()
    }

    /// For changes that come in the order of a position, such as a timestamp or a change number, that several of them may
    /// share: see [`Ordered`].
    pub fn ordered<P, F>(&mut self, token: F) -> Ordered<'_, P, F>
    where
        P: PartialOrd,
        F: Fn(&P) -> SyncToken,
    {
        Ordered { changes: self, token, position: None }
    }

    /// Hands over what was pushed up to the last checkpoint now, without waiting for a bigger batch. For slow sources.
    pub fn hand_over(&mut self) -> Result<(), Stopped> {
        self.going_on()?;
        match self.checkpoint.take() {
            Some(checkpoint) => self.emit(checkpoint.count, checkpoint.bytes, Some(checkpoint.token)),
            None => Ok(()),
        }
    }

    /// Returns once everything up to the last checkpoint is durable. For sources that forget what was acknowledged: push,
    /// checkpoint, flush, then acknowledge. After an error acknowledge nothing.
    pub fn flush(&mut self) -> Result<(), Stopped> {
        self.hand_over()?;
        host::flush().map_err(|rejection| self.end_with(Stopped(Some(rejection))))
    }

    /// The end of the call: what is left goes over, and the answer of `sync` becomes the answer of the component.
    pub(crate) fn end(mut self, outcome: Result<Option<SyncToken>, Error>) -> Result<Option<SyncToken>, Error> {
        let rest = match outcome {
            Ok(Some(token)) => self.end_at(token).map(Some),
            Ok(None) => self.hand_over_all().map(|()| None),
            Err(error) if error.is_stop() => return Ok(None),
            Err(error) => {
                // What was checkpointed before the failure is good. The failure is the answer, whatever the host says to this.
                let _ = self.hand_over();
                return Err(error);
            }
        };
        match rest.map_err(Error::from) {
            Err(error) if error.is_stop() => Ok(None),
            rest => rest,
        }
    }

    fn end_at(&mut self, token: SyncToken) -> Result<SyncToken, Stopped> {
        self.going_on()?;
        self.checkpoint = None;
        if !self.batch.is_empty() {
            self.emit(self.batch.len(), self.bytes, Some(token.clone()))?;
        }
        Ok(token)
    }

    fn hand_over_all(&mut self) -> Result<(), Stopped> {
        self.hand_over()?;
        if self.batch.is_empty() {
            return Ok(());
        }
        self.emit(self.batch.len(), self.bytes, None)
    }

    fn is_due(&self) -> bool {
        self.batch.len() >= self.aim_count || self.bytes >= self.aim_bytes
    }

    fn make_room(&mut self) -> Result<(), Stopped> {
        if self.checkpoint.is_some() { self.hand_over() } else { self.emit(self.batch.len(), self.bytes, None) }
    }

    fn emit(&mut self, count: usize, bytes: u64, checkpoint: Option<SyncToken>) -> Result<(), Stopped> {
        let flow = host::emit(&self.batch[..count], checkpoint.as_ref());
        self.batch.drain(..count);
        self.bytes -= bytes;
        match flow {
            Ok(host::Flow::Proceed) => Ok(()),
            Ok(host::Flow::Stop) => Err(self.end_with(Stopped(None))),
            Err(rejection) => Err(self.end_with(Stopped(Some(rejection)))),
        }
    }

    fn end_with(&mut self, stopped: Stopped) -> Stopped {
        self.ended = Some(stopped.clone());
        stopped
    }

    fn going_on(&self) -> Result<(), Stopped> {
        self.ended.clone().map_or(Ok(()), Err)
    }
}

/// Changes in the order of a position. Takes care of equal positions: a checkpoint is made only where the position moves on, so
/// that no resume point stands between two changes that share one.
///
/// The source must be asked for everything *after* the token's position, and must have nothing more to come at a position
/// that was handed over: where commits become visible late, or clocks are coarse, stay behind by a safety lag.
///
/// ```
/// # use tidewaiter_connector::{Changes, Delta, Error, Object, SyncToken};
/// # struct Row { changed_at: String, login: String }
/// # fn sync(rows: Vec<Row>, changes: &mut Changes) -> Result<Option<SyncToken>, Error> {
/// let mut changes = changes.ordered(|changed_at: &String| changed_at.as_str().into());
/// for row in rows {
///     changes.push(row.changed_at, Delta::upsert("account", Object::new(&row.login, &row.login)))?;
/// }
/// Ok(changes.finish())
/// # }
/// ```
#[derive(Debug)]
pub struct Ordered<'a, P, F> {
    changes: &'a mut Changes,
    token: F,
    position: Option<P>,
}

impl<P, F> Ordered<'_, P, F>
where
    P: PartialOrd,
    F: Fn(&P) -> SyncToken,
{
    /// Hands one change over. Its position may not be before that of the one pushed last: that is a bug, and fails the run.
    pub fn push(&mut self, position: P, delta: Delta) -> Result<(), Error> {
        if let Some(last) = &self.position {
            if position < *last {
                return Err(Error::internal("changes did not come in the order of their position"));
            }
            if position > *last {
                let token = &self.token;
                self.changes.checkpoint_when_due(|| Some(token(last)))?;
            }
        }
        self.changes.push(delta)?;
        self.position = Some(position);
        Ok(())
    }

    /// The token of the last position, for `sync` to return. None if nothing was pushed.
    pub fn finish(self) -> Option<SyncToken> {
        self.position.map(|last| (self.token)(&last))
    }
}
