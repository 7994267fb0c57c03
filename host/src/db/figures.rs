//! What is counted of the whole db, in one look: for whoever watches the host. Reads no entry.

use std::collections::BTreeMap;

use tidewaiter_core::name::TypeKey;
use tidewaiter_core::state::TypeState;
use tidewaiter_core::time::UnixMillis;

use super::consumer::Consumer;
use super::store::Usage;

/// The db in figures, as of one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// The sequence of the first entry that is kept, or will be.
    pub first: u64,
    /// The sequence of the last entry, 0 if there is none.
    pub last: u64,
    /// Bytes of segments.
    pub usage: Usage,
    /// The states of all types that have one.
    pub states: BTreeMap<TypeKey, TypeState>,
    /// How many deltas of each type are kept out of the journal, by connection and type.
    pub dead_letters: BTreeMap<(String, String), u64>,
    /// How many entries each sink refuses, with those that wait for them.
    pub refused: BTreeMap<String, u64>,
    /// How far each sink is that delivered anything.
    pub sinks: BTreeMap<String, Reader>,
    /// How far a sink is that delivered nothing yet.
    pub beginner: Reader,
    /// The consumers.
    pub consumers: BTreeMap<String, (Consumer, Reader)>,
}

/// How far somebody is who reads the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// It has everything up to this sequence.
    pub position: u64,
    /// When the first entry was journaled that it hasn't got; none: it has all.
    pub waits_since: Option<UnixMillis>,
}
