//! Everything that is tested from outside.
//!
//! - `sync`: the sandboxed csv connector, a real db, and runs from one to the other
#![allow(clippy::unwrap_used, reason = "tests")]

mod sync;
