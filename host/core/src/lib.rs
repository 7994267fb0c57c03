//! The thinking half of Tidewaiter: its words, its machines and its decisions.
//!
//! This crate does nothing by itself. It reads no clock, no file and no randomness, knows neither tokio nor wasmtime nor
//! redb; time and outcomes are handed in (`handle_*`), wishes are taken out (`poll_effect`). So everything that decides
//! whether a change may be lost or repeated can be run a thousand times a second in a test.

#![forbid(unsafe_code)]

pub mod access;
pub mod backoff;
pub mod dead_letter;
pub mod grant;
pub mod guard;
pub mod inspect;
pub mod journal;
pub mod limit;
pub mod name;
pub mod object;
pub mod refusal;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod shadow;
pub mod state;
pub mod text;
pub mod time;
pub mod timing;
pub mod token;
