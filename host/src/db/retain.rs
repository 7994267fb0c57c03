//! Which entries are dropped. The one rule: an entry stays until every sink and every consumer has it; then it goes when it is old
//! enough, or when its room is needed. Where nobody is, nobody has anything, and nothing goes. Performs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewaiter_core::time::UnixMillis;

use super::consumer::Consumer;
use super::store::{Quota, Usage};

/// Room is made when this many of a hundred parts of a quota are used, or something was refused.
const ROOM_AT_PERCENT: u64 = 90;
/// And then so much that no more than this many are used: a run that goes on has room for more than one commit.
const ROOM_TO_PERCENT: u64 = 70;

/// What decides which entries go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long delivered entries stay; none: until their room is needed.
    pub keep: Option<Duration>,
    /// How much there may be.
    pub quota: Quota,
    /// The sinks that are in use; the positions of others don't count.
    pub sinks: Vec<String>,
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Entries dropped.
    pub entries: u64,
    /// Bytes of their segments.
    pub bytes: u64,
    /// Consumers that were found to be too far behind.
    pub expired: Vec<String>,
    /// There is more to drop.
    pub more: bool,
}

/// A segment, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// The sequence of its last entry.
    pub(super) last: u64,
    pub(super) connection: &'a str,
    pub(super) bytes: u64,
    pub(super) at: UnixMillis,
}

/// Judges segments, oldest first.
#[derive(Debug)]
pub(super) struct Judge {
    /// Everyone has everything up to here.
    delivered: u64,
    keep: Option<Duration>,
    now: UnixMillis,
    quota: Quota,
    usage: Usage,
    /// Bytes that were refused, for want of room.
    room: u64,
    /// Room is being made.
    making: bool,
}

impl Judge {
    /// With the positions of the sinks that are in use, the consumers after the late ones were expired, and up to where all shadows are
    /// brought up, if there are any.
    pub(super) fn new(
        policy: &Policy,
        sinks: &BTreeMap<String, u64>,
        consumers: &BTreeMap<String, Consumer>,
        shadowed: Option<u64>,
        usage: Usage,
        room: u64,
        now: UnixMillis,
    ) -> Self {
        let sinks = policy.sinks.iter().map(|name| sinks.get(name).copied().unwrap_or(0));
        let consumers = consumers.values().filter(|consumer| consumer.expired.is_none());
        // Nobody: nothing is delivered.
        let delivered = sinks
            .chain(consumers.map(|consumer| consumer.position))
            .min()
            .unwrap_or(0)
            .min(shadowed.unwrap_or(u64::MAX));
        Self { delivered, keep: policy.keep, now, quota: policy.quota, usage, room, making: false }
    }

    /// Whether the oldest segment that is left goes. Only from the front, so that the journal has no holes.
    pub(super) fn drops(&mut self, candidate: Candidate<'_>) -> bool {
        if candidate.last > self.delivered || !(self.is_old(candidate.at) || self.is_tight()) {
            return false;
        }
        self.usage.total = self.usage.total.saturating_sub(candidate.bytes);
        if let Some(bytes) = self.usage.connections.get_mut(candidate.connection) {
            *bytes = bytes.saturating_sub(candidate.bytes);
        }
        true
    }

    fn is_old(&self, at: UnixMillis) -> bool {
        let age = u64::try_from(self.now.0.saturating_sub(at.0)).unwrap_or(0);
        self.keep.is_some_and(|keep| u128::from(age) >= keep.as_millis())
    }

    /// Any quota counts, not only this segment's: what makes room for another connection may lie behind this one.
    fn is_tight(&mut self) -> bool {
        let percent = if self.making { ROOM_TO_PERCENT } else { ROOM_AT_PERCENT };
        let tight = |used: u64, max: u64| used > max / 100 * percent || used.saturating_add(self.room) > max;
        let connections = &self.usage.connections;
        self.making = tight(self.usage.total, self.quota.total_bytes)
            || connections.values().any(|bytes| tight(*bytes, self.quota.connection_bytes));
        self.making
    }
}

#[cfg(test)]
mod tests {
    use tidewaiter_core::journal::Incarnation;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn judge(policy: &Policy, sinks: &[(&str, u64)], consumers: &[u64], used: u64) -> Judge {
        let sinks = sinks.iter().map(|(name, position)| ((*name).to_owned(), *position)).collect();
        let consumer = |position| Consumer::new(Incarnation(1), position, None, UnixMillis(0));
        let consumers = consumers.iter().map(|position| (position.to_string(), consumer(*position))).collect();
        let usage = Usage { total: used, connections: BTreeMap::from([("hr".into(), used)]) };
        Judge::new(policy, &sinks, &consumers, None, usage, 0, UnixMillis(10 * DAY))
    }

    fn policy(keep: Option<u64>, max: u64) -> Policy {
        let keep = keep.map(|days| Duration::from_secs(days * 86_400));
        Policy { keep, quota: Quota { connection_bytes: u64::MAX, total_bytes: max }, sinks: vec!["file".into()] }
    }

    fn candidate(last: u64, day: i64) -> Candidate<'static> {
        Candidate { last, connection: "hr", bytes: 100, at: UnixMillis(day * DAY) }
    }

    #[test]
    fn what_somebody_has_not_got_stays_whatever_its_age_and_the_room() {
        let full = policy(Some(1), 1000);
        assert!(judge(&full, &[("file", 9)], &[8], 1000).drops(candidate(8, 0)));
        assert!(!judge(&full, &[("file", 9)], &[8], 1000).drops(candidate(9, 0)), "a consumer is behind");
        assert!(!judge(&full, &[("file", 7)], &[8], 1000).drops(candidate(8, 0)), "the sink is behind");
        assert!(!judge(&full, &[("other", 9)], &[8], 1000).drops(candidate(8, 0)), "a sink that has nothing yet");
        let nobody = Policy { sinks: vec![], ..full };
        assert!(!judge(&nobody, &[("file", 9)], &[], 1000).drops(candidate(1, 0)), "nobody has anything");
    }

    #[test]
    fn what_everyone_has_goes_when_it_is_old_or_its_room_is_needed() {
        let sinks = [("file", 99)];
        assert!(judge(&policy(Some(5), u64::MAX), &sinks, &[], 10).drops(candidate(1, 5)));
        assert!(!judge(&policy(Some(5), u64::MAX), &sinks, &[], 10).drops(candidate(1, 6)));
        assert!(!judge(&policy(Some(5), u64::MAX), &sinks, &[], 10).drops(candidate(1, 20)), "a clock was set back");
        assert!(!judge(&policy(None, 1000), &sinks, &[], 899).drops(candidate(1, 0)));
        let mut tight = judge(&policy(None, 1000), &sinks, &[], 1000);
        assert!((1..=3).all(|last| tight.drops(candidate(last, 9))));
        assert!(!tight.drops(candidate(4, 9)), "there is room again");
    }
}
