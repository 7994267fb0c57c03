//! What is generated from `wit/`. Every import may wait: the guest is then suspended on its fiber.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "tidewaiter:connector/connector",
    with: { "wasi:io": wasmtime_wasi::p2::bindings::io },
    imports: { default: async | trappable },
    exports: { default: async },
});
