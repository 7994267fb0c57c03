//! Owns wasmtime's engine and the thread that ticks its epoch.

use std::time::Duration;

use wasmtime::{Config, Strategy};

/// How often a running guest lets others work.
const TICK: Duration = Duration::from_millis(10);

/// The engine. Clones are the same engine; its ticker ends with the last one.
#[derive(Clone)]
pub struct Engine {
    inner: wasmtime::Engine,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Engine {
    /// An engine with everything off that connectors don't need.
    ///
    /// # Errors
    /// This machine can't run it, in wasmtime's words, or refuses a thread.
    pub fn new() -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.strategy(Strategy::Cranelift);
        config.wasm_component_model(true).concurrency_support(false);
        config.wasm_gc(false).wasm_function_references(false).wasm_exceptions(false);
        config.wasm_threads(false).shared_memory(false).wasm_memory64(false).wasm_relaxed_simd(false);
        config.epoch_interruption(true);
        let inner = wasmtime::Engine::new(&config)?;
        let weak = inner.weak();
        let tick = move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("epoch-ticker".into()).spawn(tick)?;
        Ok(Self { inner })
    }

    pub(super) fn inner(&self) -> &wasmtime::Engine {
        &self.inner
    }
}
