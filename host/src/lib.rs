//! Tidewaiter runs third-party connectors, compiled to WebAssembly components, in a sandbox, and writes every change that they
//! hand over and the new sync token in one durable transaction.

pub mod access;
pub mod api;
pub mod audit;
pub mod cli;
mod clients;
pub mod clock;
pub mod config;
pub mod db;
pub mod driver;
pub mod egress;
mod files;
pub mod host;
pub mod import;
pub mod meters;
mod oci;
pub mod secret;
pub mod sink;
pub mod socket;
pub mod trace;
pub mod trust;
pub mod wasm;

/// What the rest speaks in: names, tokens, deltas, grants, states.
pub use tidewaiter_core as core;
