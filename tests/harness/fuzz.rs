//! What the bodies of fuzz tests are for the test binary, and the one that needs an engine.

use tidewaiter::wasm::{Connector, Engine, EngineOptions};

use crate::bodies::{addresses, batches, destinations};

/// A body and its name.
pub type Body = (&'static str, fn(&[u8]));

/// Those that are quick; components are compiled, and have their own loop.
pub const QUICK: [Body; 3] = [("destinations", destinations), ("addresses", addresses), ("batches", packed)];

/// What passed the inspector can be stored.
fn packed(bytes: &[u8]) {
    tidewaiter::db::pack(&batches(bytes)).expect("what passed can be packed");
}

/// Whatever is said to be a component, loading it answers, and what it loads describes itself.
///
/// # Panics
/// It does not.
pub async fn component(engine: &Engine, bytes: &[u8]) {
    let name = "hostile".parse().expect("a name");
    if let Ok(connector) = Connector::load(engine, &name, bytes).await {
        assert_eq!(connector.info().name, "hostile");
    }
}

/// An engine for `component`, that compiles here.
///
/// # Panics
/// This machine has none.
pub fn engine() -> Engine {
    Engine::new(&EngineOptions::default()).expect("an engine")
}
