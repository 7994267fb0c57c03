//! Delivery: entries are handed out of the journal, in order, at least once. A sink is handed entries; it doesn't know where
//! they come from, and it can't hold up a run.

pub mod ndjson;
pub mod render;
