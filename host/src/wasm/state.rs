//! What belongs to one instance: its WASI context, its limits, and where what it hands over goes.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tidewaiter_core::dead_letter::{DeadLetter, Fault, Feed, Held, Sorted, Untold};
use tidewaiter_core::inspect::{Inspected, Inspector, Rejection};
use tidewaiter_core::journal::Packed;
use tidewaiter_core::limit::Limits;
use tidewaiter_core::object::SyncDelta;
use tidewaiter_core::run::Failure;
use tidewaiter_core::schema::Classes;
use tidewaiter_core::token::SyncToken;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use tracing::Level;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::engine::{self, Live};
use super::gauge::Gauge;
use super::http::{FIELDS_BYTES_MAX, Http};
use super::log::GuestLog;
use super::{files, sockets};
use crate::egress::Outgoing;

/// Resource handles that an instance may hold. Each may be a file of the host's.
const RESOURCES_MAX: usize = 256;
/// Random bytes that one call may ask for.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Elements of all tables are counted as this many bytes of memory each.
const TABLE_ELEMENT_BYTES: usize = 16;

/// What comes from a connector during `sync`.
#[derive(Debug)]
pub enum FromGuest {
    /// A batch that passed inspection.
    Batch {
        /// The deltas, in source order.
        deltas: Packed,
        /// Those that are kept out of the journal.
        kept: Vec<DeadLetter>,
        /// Numbers of those that were and are settled.
        resolved: Vec<u64>,
        /// Their size.
        bytes: u64,
        /// What came with them.
        checkpoint: Option<SyncToken>,
    },
    /// It waits until everything up to the last checkpoint is durable.
    Flush(oneshot::Sender<bool>),
}

/// A folder that a connector may read.
#[derive(Clone, Debug)]
pub struct ReadGrant {
    /// By which name the connector opens it.
    pub guest_path: String,
    /// Where it is.
    pub host_path: PathBuf,
}

/// Shows a secret by its name, if it may be seen.
#[derive(Clone)]
pub struct Reveal(pub Arc<dyn Fn(String) -> Revealing + Send + Sync>);

/// A secret, on its way to a connector.
pub type Revealing = Pin<Box<dyn Future<Output = Result<Vec<u8>, RevealRefusal>> + Send>>;

/// Why a secret isn't shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevealRefusal {
    /// There is none of this name, or it can't be read.
    Unknown,
    /// It was not asked for, or not granted.
    NotGranted,
}

impl std::fmt::Debug for Reveal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reveal")
    }
}

/// Reads the classes of the source with another instance, once: those that were known may be out of date.
pub struct ClassReader(pub Box<dyn FnOnce() -> ReadingClasses + Send>);

/// The classes, on their way.
pub type ReadingClasses = Pin<Box<dyn Future<Output = Result<Arc<Classes>, Failure>> + Send>>;

impl std::fmt::Debug for ClassReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClassReader")
    }
}

/// The data of a store.
pub(super) struct State {
    wasi: WasiCtx,
    pub(super) http: Http,
    pub(super) table: ResourceTable,
    pub(super) memory: Memory,
    pub(super) settings: String,
    pub(super) log: GuestLog,
    pub(super) reveal: Option<Reveal>,
    pub(super) outgoing: Option<Arc<Outgoing>>,
    /// None: not in a run.
    pub(super) run: Option<RunLink>,
    pub(super) live: Option<Live>,
}

/// What a guest finds inside.
#[derive(Default)]
pub(super) struct Inside {
    /// One JSON object.
    pub(super) settings: String,
    pub(super) run: Option<RunLink>,
    pub(super) outgoing: Option<Arc<Outgoing>>,
    pub(super) reveal: Option<Reveal>,
}

/// An instance's way to its run.
pub(super) struct RunLink {
    pub(super) inspector: Inspector,
    /// None: the classes were read in this run.
    pub(super) class_reader: Option<ClassReader>,
    pub(super) limits: Limits,
    /// What is kept out of the journal, once something came.
    pub(super) held: Option<Held>,
    pub(super) read_held: ReadHeld,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) to_run: mpsc::Sender<FromGuest>,
    pub(super) pack: Pack,
    pub(super) pack_read: Pack,
    /// What becomes of objects that are read; none: all are told.
    pub(super) compare: Option<Compare>,
    /// What reading them means.
    pub(super) reads: Feed,
    /// The only attributes that are kept; none: all.
    pub(super) attributes: Option<Vec<String>>,
}

/// Answers which of the objects that were read are told, and as what; of the others, nothing is.
#[derive(Clone)]
pub struct Compare(pub Arc<Judge>);

/// Judges objects.
pub(super) type Judge = dyn Fn(Vec<SyncDelta>, Vec<Untold>) -> Vec<SyncDelta> + Send + Sync;

impl std::fmt::Debug for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compare")
    }
}

/// Reads what is kept out of the journal of the type; the error is one of the host.
#[derive(Clone)]
pub struct ReadHeld(pub Arc<dyn Fn() -> ReadingHeld + Send + Sync>);

/// What is kept, on its way.
pub type ReadingHeld = Pin<Box<dyn Future<Output = Result<Held, String>> + Send>>;

impl std::fmt::Debug for ReadHeld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadHeld")
    }
}

/// Packs deltas as they will be journaled; the error is one of the host.
pub type Pack = fn(&[SyncDelta]) -> Result<Packed, String>;

impl RunLink {
    /// Inspects a batch; against classes read anew where those that were known don't allow it.
    pub(super) async fn inspect(
        &mut self,
        deltas: &[SyncDelta],
        checkpoint: Option<&SyncToken>,
    ) -> Result<Inspected, Rejection> {
        let inspected = self.inspector.emit(deltas, checkpoint);
        let is_about_classes = match &inspected {
            Err(rejection) => rejection.is_about_classes(),
            Ok(inspected) => !inspected.faults.is_empty(),
        };
        if !is_about_classes {
            return inspected;
        }
        let Some(ClassReader(read)) = self.class_reader.take() else { return inspected };
        let Ok(classes) = read().await else { return inspected };
        self.inspector.renew(classes);
        self.inspector.emit(deltas, checkpoint)
    }

    /// Makes sure that it is known what is kept out of the journal. The error is one of the host.
    pub(super) async fn know_held(&mut self) -> Result<(), String> {
        if self.held.is_none() {
            self.held = Some((self.read_held.0)().await?);
        }
        Ok(())
    }

    /// Keeps out of the journal what is at fault, and what waits for what is kept out.
    pub(super) fn sort(&mut self, deltas: Vec<SyncDelta>, faults: Vec<Fault>) -> Result<Sorted, Rejection> {
        let feed = if self.inspector.class_searched().is_some() { self.reads } else { Feed::Changes };
        let sorted = self.held.get_or_insert_default().sort(deltas, faults, feed, &self.limits);
        sorted.map_err(|too_many| self.inspector.refuse_letters(too_many))
    }

    /// Whether the connector is to be answered `stop`; from then on it is.
    pub(super) fn stops(&mut self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            self.inspector.stop();
        }
        self.inspector.is_stopped()
    }
}

impl State {
    pub(super) fn new(
        inside: Inside,
        grants: &[ReadGrant],
        log: GuestLog,
        limits: &Limits,
        gauge: &Arc<Gauge>,
    ) -> wasmtime::Result<Self> {
        let Inside { settings, run, outgoing, reveal } = inside;
        let mut builder = WasiCtxBuilder::new();
        builder.max_random_size(RANDOM_BYTES_MAX);
        builder.stdout(Lines { log: log.clone(), stream: "stdout" });
        builder.stderr(Lines { log: log.clone(), stream: "stderr" });
        for grant in grants {
            let opened = builder.preopened_dir(&grant.host_path, &grant.guest_path, FsPerms::ReadOnly);
            opened.map_err(|error| error.context(grant.host_path.display().to_string()))?;
        }
        if let Some(outgoing) = &outgoing {
            sockets::open(&mut builder, outgoing);
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let gauge = Arc::clone(gauge);
        let memory = Memory { max: limits.memory_bytes_max, held: 0, table_elements: 0, refused: false, gauge };
        let (wasi, http) = (builder.build(), Http::new(outgoing.clone()));
        Ok(Self { wasi, http, table, memory, settings, log, reveal, outgoing, run, live: None })
    }
}

impl State {
    /// Whether it connected to where TLS has to be spoken, and spoke none.
    pub(super) fn lacks_tls(&self) -> bool {
        self.outgoing.as_ref().is_some_and(|outgoing| outgoing.lacks_tls())
    }

    /// Handles come and go in host calls only: those that are held when one begins, or when the guest is done, are the most.
    pub(super) fn count_resources(&mut self) {
        let held = self.table.iter_mut().count();
        self.memory.gauge.resources(held as u64);
    }
}

/// The limits of what an instance has from its host.
pub(super) fn sandbox() -> [(&'static str, u64); 4] {
    [
        ("resources", RESOURCES_MAX as u64),
        ("folder-listings", files::LISTINGS_MAX as u64),
        ("random-bytes", RANDOM_BYTES_MAX),
        ("http-field-bytes", FIELDS_BYTES_MAX as u64),
    ]
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.count_resources();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Sums all memories and tables of an instance.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) max: u64,
    held: u64,
    table_elements: u64,
    pub(super) gauge: Arc<Gauge>,
    /// It was refused more.
    pub(super) refused: bool,
}

impl Memory {
    fn grow(&mut self, by: usize) -> bool {
        let held = self.held.saturating_add(by as u64);
        self.refused |= held > self.max;
        if held <= self.max {
            self.held = held;
            self.gauge.holds(held);
        }
        held <= self.max
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let grows = self.grow(more.saturating_mul(TABLE_ELEMENT_BYTES));
        if grows {
            self.table_elements += more as u64;
            self.gauge.table_elements(self.table_elements);
        }
        Ok(grows)
    }

    fn instances(&self) -> usize {
        engine::CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        engine::TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        engine::MEMORIES_MAX as usize
    }
}

/// Standard output and error: whole lines go into the run's log. Holds one line at most.
#[derive(Clone)]
struct Lines {
    log: GuestLog,
    stream: &'static str,
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(LineWriter { lines: self.clone(), held: Vec::new() })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineWriter { lines: self.clone(), held: Vec::new() })
    }
}

struct LineWriter {
    lines: Lines,
    held: Vec<u8>,
}

impl LineWriter {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = self.lines.log.line_bytes_max().saturating_add(1).saturating_sub(self.held.len());
            self.held.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.held);
        self.lines.log.line(Level::INFO, self.lines.stream, text.trim_end_matches(['\n', '\r']));
        self.held.clear();
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.end_line();
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineWriter {
    async fn ready(&mut self) {}
}

impl OutputStream for LineWriter {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 * 1024)
    }
}

impl AsyncWrite for LineWriter {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
