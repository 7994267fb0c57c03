//! Owns wasmtime's engine: what it allows, where instances get their memory, and the thread that ticks its epoch.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use super::cache::Cache;
use super::compile::{self, Compiler};
use crate::meters::Meters;

/// The version of the wasmtime that is linked: it takes no other version of this crate of its own.
pub const VERSION: &str = wasmtime_environ::VERSION;
/// How often a running guest lets others work.
const TICK: Duration = Duration::from_millis(10);
/// Core instances of one component. A Python component has some ten, one for each of its libraries.
pub(super) const CORE_INSTANCES_MAX: u32 = 200;
/// Memories of one component.
pub(super) const MEMORIES_MAX: u32 = 32;
/// Tables of one component.
pub(super) const TABLES_MAX: u32 = 64;
/// Stack of a guest: deep enough for recursive parsers, and part of the fiber's.
const STACK_BYTES: usize = 512 * 1024;
/// Stack of a fiber: a guest's, and what host functions need that it calls.
const FIBER_BYTES: usize = 2 * 1024 * 1024;
/// Elements of one table.
const TABLE_ELEMENTS_MAX: usize = 20_000;
/// Memory of a slot that stays for its next instance. With `pagemap_scan` only written pages are reset, so more costs nothing;
/// without it all of it is (measured: 5 µs against 12 µs for starting and dropping an instance).
const RESIDENT_BYTES: usize = 2 * 1024 * 1024;
const RESIDENT_BYTES_WITHOUT_SCAN: usize = 64 * 1024;
/// Of a table, likewise: its elements in use are overwritten, which is less than these.
const TABLE_RESIDENT_BYTES: usize = 64 * 1024;
/// Slots that keep their memory when nothing uses them.
const WARM_SLOTS: u32 = 16;
/// Each memory of a pool has 4 GiB of addresses, and a guard. Fewer slots than this are not worth a pool.
const SLOTS_MIN: u32 = 16;

/// How an engine is to be made.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Instances that may live at the same time; more fail to start.
    pub instances: u32,
    /// The program that compiles connectors, called with `compile`: this one. None: they are compiled in this process.
    pub compiler: Option<PathBuf>,
    /// How long the compiler may take for one connector.
    pub compile_time: Duration,
    /// Where compiled connectors are kept. None: they are compiled each time.
    pub cache: Option<PathBuf>,
    /// Where compiling is counted.
    pub meters: Meters,
}

impl Default for EngineOptions {
    /// For a few connectors, compiled here.
    fn default() -> Self {
        Self { instances: 160, compiler: None, compile_time: compile::TIME_MAX, cache: None, meters: Meters::default() }
    }
}

/// Where instances get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From slots that are reused, for that many instances.
    Pooled(u32),
    /// From the system each time: there are not enough addresses for a pool.
    OnDemand,
}

/// The engine. Clones are the same engine; its ticker ends with the last one.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
    allocation: Allocation,
    compiler: Arc<Compiler>,
    ticker: Arc<Ticker>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("allocation", &self.allocation).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with everything off that connectors don't need.
    ///
    /// # Errors
    /// This machine can't run it, in wasmtime's words, or refuses a thread; or the cache can't be used.
    pub fn new(options: &EngineOptions) -> anyhow::Result<Self> {
        let (inner, allocation) = allocated(options.instances)?;
        let cache = options.cache.as_deref().map(|dir| Cache::open(dir, &inner)).transpose()?;
        let compiler = Arc::new(Compiler::new(options, cache));
        let ticker = Arc::new(Ticker::start(&inner)?);
        Ok(Self { inner, allocation, compiler, ticker })
    }

    /// Where instances get their memory.
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// How many instances live.
    pub fn instances(&self) -> usize {
        self.ticker.shared.guests().live
    }

    /// The limits of each instance, by name; and how many there may be at the same time, where they come from a pool.
    pub(super) fn sandbox(&self) -> Vec<(&'static str, u64)> {
        let pooled = match self.allocation {
            Allocation::Pooled(instances) => Some(("instances", instances.into())),
            Allocation::OnDemand => None,
        };
        let each = [
            ("stack-bytes", STACK_BYTES as u64),
            ("core-instances", CORE_INSTANCES_MAX.into()),
            ("memories", MEMORIES_MAX.into()),
            ("tables", TABLES_MAX.into()),
            ("table-elements", TABLE_ELEMENTS_MAX as u64),
        ];
        pooled.into_iter().chain(each).collect()
    }

    pub(super) fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }

    pub(super) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// While it is held, the epoch ticks.
    pub(super) fn live(&self) -> Live {
        self.ticker.shared.enter();
        Live { shared: Arc::clone(&self.ticker.shared) }
    }
}

/// What all engines have in common, and what compiled code depends on.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    config.strategy(Strategy::Cranelift);
    config.wasm_component_model(true).concurrency_support(false);
    config.wasm_gc(false).wasm_function_references(false).wasm_exceptions(false);
    config.wasm_threads(false).shared_memory(false).wasm_memory64(false).wasm_relaxed_simd(false);
    config.max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_BYTES);
    config.epoch_interruption(true);
    config
}

/// As many slots as are wanted, or as the address space has.
fn allocated(instances: u32) -> anyhow::Result<(wasmtime::Engine, Allocation)> {
    let mut slots = instances.max(SLOTS_MIN);
    while slots >= SLOTS_MIN {
        let mut config = config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(slots)));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => return Ok((engine, Allocation::Pooled(slots))),
            Err(error) => tracing::debug!(slots, "no pool of instances: {error:#}"),
        }
        slots /= 2;
    }
    tracing::warn!("too few addresses for a pool of instances: each start of a connector takes longer");
    Ok((wasmtime::Engine::new(&config())?, Allocation::OnDemand))
}

fn pool(slots: u32) -> PoolingAllocationConfig {
    let scans = PoolingAllocationConfig::is_pagemap_scan_available();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots).total_core_instances(slots.saturating_mul(16));
    // Most components have one memory; those with more take the slots of others.
    pool.total_memories(slots.saturating_mul(2)).total_tables(slots.saturating_mul(8)).total_stacks(slots);
    pool.max_core_instances_per_component(CORE_INSTANCES_MAX);
    pool.max_memories_per_component(MEMORIES_MAX).max_tables_per_component(TABLES_MAX);
    pool.table_elements(TABLE_ELEMENTS_MAX);
    pool.linear_memory_keep_resident(if scans { RESIDENT_BYTES } else { RESIDENT_BYTES_WITHOUT_SCAN });
    pool.table_keep_resident(TABLE_RESIDENT_BYTES);
    pool.max_unused_warm_slots(WARM_SLOTS).pagemap_scan(Enabled::Auto);
    pool
}

/// The thread that ticks. It sleeps while no guest lives: a host with nothing to do does nothing.
struct Ticker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Guests>,
    changed: Condvar,
}

#[derive(Default)]
struct Guests {
    live: usize,
    /// The ticker sleeps until the first of them.
    resting: bool,
    ended: bool,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (weak, ticking) = (engine.weak(), Arc::clone(&shared));
        let tick = move || {
            while ticking.wait() {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        };
        std::thread::Builder::new().name("epoch-ticker".into()).spawn(tick)?;
        Ok(Self { shared })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.guests().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn guests(&self) -> std::sync::MutexGuard<'_, Guests> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) {
        let mut guests = self.guests();
        guests.live += 1;
        if guests.resting {
            self.changed.notify_all();
        }
    }

    /// Waits for a guest; false: there will be none any more.
    fn wait(&self) -> bool {
        let idle = |guests: &mut Guests| {
            guests.resting = guests.live == 0 && !guests.ended;
            guests.resting
        };
        let guests = self.changed.wait_while(self.guests(), idle).unwrap_or_else(PoisonError::into_inner);
        !guests.ended
    }
}

/// A guest lives.
pub(super) struct Live {
    shared: Arc<Shared>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.guests().live -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_version_it_is() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        let built_in = format!("[[package]]\nname = \"wasmtime\"\nversion = \"{VERSION}\"\n");
        assert!(lock.contains(&built_in), "it is not {VERSION}");
    }
}
