//! Everything that is tested from outside.
//!
//! - `host`: schedules, operators' acts, restarts, through the library's face
//! - `sync`: the sandboxed csv connector, a real db, and runs from one to the other
#![allow(clippy::unwrap_used, reason = "tests")]

mod host;
mod sync;
