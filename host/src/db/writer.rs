//! The writer: takes what is queued, writes it as one group with one flush of the disk, answers each. The only place that
//! writes. `write_group` is its whole body, so that a simulation can drive it without the thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tidewaiter_core::dead_letter::DeadLetter;
use tidewaiter_core::refusal::size;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::CommitError;
use super::store::{Chore, Counters, Done, Quota, Store, Write};
use crate::meters::Meters;

/// Members of a group: more than this wait for the next one, so that one flush never takes for ever.
const GROUP_COUNT_MAX: usize = 256;
/// Bytes that are queued or being written. Beyond it `commit` waits.
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a permit of the queue stands for.
const PERMIT_BYTES: usize = 1024;

/// What became of a member.
pub(super) type Answer = Result<Done, CommitError>;

/// What is queued.
#[derive(Debug)]
pub(super) enum Order {
    /// Together with others.
    Write(Write),
    /// Alone.
    Chore(Chore),
}

/// What is durable, for everyone to see.
#[derive(Debug)]
pub(super) struct Durable {
    sequence: watch::Sender<u64>,
    /// Somebody acted on dead letters of sinks.
    letters: watch::Sender<()>,
    run: AtomicU64,
    quota: Mutex<Quota>,
    /// The most bytes that were refused for want of room, since somebody looked.
    refused: AtomicU64,
    /// Where commits are counted; none: nowhere.
    meters: OnceLock<Meters>,
}

impl Durable {
    pub(super) fn new(counters: Counters) -> Self {
        Self {
            sequence: watch::Sender::new(counters.sequence),
            letters: watch::Sender::new(()),
            run: AtomicU64::new(counters.run),
            quota: Mutex::new(Quota::UNLIMITED),
            refused: AtomicU64::new(0),
            meters: OnceLock::new(),
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        *self.sequence.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }

    pub(super) fn watch_letters(&self) -> watch::Receiver<()> {
        self.letters.subscribe()
    }

    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Acquire)
    }

    pub(super) fn quota(&self) -> Quota {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_quota(&self, quota: Quota) {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = quota;
    }

    /// The first time it is told, for as long as the db is open.
    pub(super) fn set_meters(&self, meters: Meters) {
        let _ = self.meters.set(meters);
    }

    fn counted<T>(&self, members: usize, commit: impl FnOnce() -> T) -> T {
        match self.meters.get() {
            Some(meters) => meters.committed(members, commit),
            None => commit(),
        }
    }

    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::AcqRel)
    }

    fn publish(&self, counters: Counters) {
        self.run.store(counters.run, Ordering::Release);
        self.sequence.send_if_modified(|last| std::mem::replace(last, counters.sequence) != counters.sequence);
    }
}

/// Writes a group and answers each member, in order.
pub(super) fn write_group(store: &dyn Store, durable: &Durable, group: &[Write]) -> Vec<Answer> {
    let answers = write(store, durable, group);
    // What failed may be written all the same.
    if group.iter().any(|write| matches!(write, Write::Delivered { delivered, .. } if delivered.changes_letters())) {
        durable.letters.send_replace(());
    }
    answers
}

fn write(store: &dyn Store, durable: &Durable, group: &[Write]) -> Vec<Answer> {
    match store.write(group, durable.quota()) {
        Ok(written) => {
            durable.publish(written.counters);
            for member in &written.members {
                if let Err(CommitError::Full(full)) = member {
                    durable.refused.fetch_max(full.more, Ordering::AcqRel);
                }
            }
            written.members
        }
        Err(error) => {
            tracing::error!(members = group.len(), %error, "the db could not write");
            // A flush that failed may have reached the disk all the same: then it is there from now on.
            if let Ok(counters) = store.counters() {
                durable.publish(counters);
            }
            group.iter().map(|_| Err(CommitError::Storage(error.to_string()))).collect()
        }
    }
}

struct Job {
    order: Order,
    answer: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

/// The thread and its queue. Dropping it writes what is queued and ends the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn spawn(store: Arc<dyn Store>, durable: Arc<Durable>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel(GROUP_COUNT_MAX);
        let work = move || work(store.as_ref(), &durable, jobs);
        let thread = std::thread::Builder::new().name("db-writer".into()).spawn(work)?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / PERMIT_BYTES));
        Ok(Self { queue: Some(queue), room, thread: Some(thread) })
    }

    /// Queues something to be done, and waits until it is durable.
    pub(super) async fn perform(&self, order: Order) -> Answer {
        let gone = || CommitError::Storage("the writer has ended".into());
        let permits = permits(&order);
        let _room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Job { order, answer, _room }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It only ends otherwise by a panic, which has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// A write larger than the whole queue takes all of it, and goes alone.
fn permits(order: &Order) -> u32 {
    let segments = match order {
        Order::Write(Write::Commit(commit)) => commit.segments.as_slice(),
        Order::Write(Write::Stage { segments, .. }) => segments,
        Order::Write(_) | Order::Chore(_) => &[],
    };
    let letters: u64 = match order {
        Order::Write(Write::Commit(commit)) => commit.letters.kept.iter().map(DeadLetter::size).sum(),
        Order::Write(Write::Delivered { delivered, .. }) => delivered.kept.iter().map(|(entry, _)| size(entry)).sum(),
        Order::Write(_) | Order::Chore(_) => 0,
    };
    let segments: usize = segments.iter().map(|segment| segment.bytes.len()).sum();
    let bytes = segments.saturating_add(usize::try_from(letters).unwrap_or(usize::MAX));
    let permits = (bytes / PERMIT_BYTES + 1).min(QUEUE_BYTES_MAX / PERMIT_BYTES);
    u32::try_from(permits).expect("bounded by the queue's size")
}

fn work(store: &dyn Store, durable: &Durable, mut jobs: mpsc::Receiver<Job>) {
    let mut next = jobs.blocking_recv();
    while let Some(job) = next {
        next = match job.order {
            Order::Write(first) => {
                let (mut group, mut waiting) = (vec![first], vec![(job.answer, job._room)]);
                let mut after = None;
                while group.len() < GROUP_COUNT_MAX && after.is_none() {
                    match jobs.try_recv() {
                        Ok(Job { order: Order::Write(write), answer, _room }) => {
                            group.push(write);
                            waiting.push((answer, _room));
                        }
                        Ok(chore) => after = Some(chore),
                        Err(_) => break,
                    }
                }
                let answers = durable.counted(group.len(), || write_group(store, durable, &group));
                // Before anyone is answered, so that the memory of a group is gone when its members go on.
                drop(group);
                for ((waiting, _room), answer) in waiting.into_iter().zip(answers) {
                    // Nobody waits any more: it is durable all the same.
                    let _ = waiting.send(answer);
                }
                after
            }
            Order::Chore(chore) => {
                let _ = job.answer.send(store.chore(&chore));
                None
            }
        }
        .or_else(|| jobs.blocking_recv());
    }
}
