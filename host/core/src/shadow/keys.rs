//! A set of keyed hashes that holds ten million of them in little more than their own 80 MB: a hash table would take twice that, and
//! both its old and its new rows while it grows.

/// How many bits of a key choose its part: with ten million keys a part has 600, and one more is put in its place in 50 ns.
const PART_BITS: u32 = 14;

/// Keys, which are spread evenly, by their first bits.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Each in order; none before the first key.
    parts: Vec<Vec<u64>>,
}

impl Keys {
    fn part(key: u64) -> usize {
        usize::try_from(key >> (u64::BITS - PART_BITS)).unwrap_or(usize::MAX)
    }

    pub(super) fn contains(&self, key: u64) -> bool {
        self.parts.get(Self::part(key)).is_some_and(|part| part.binary_search(&key).is_ok())
    }

    /// Answers whether it wasn't in it.
    pub(super) fn insert(&mut self, key: u64) -> bool {
        if self.parts.is_empty() {
            self.parts.resize(1 << PART_BITS, Vec::new());
        }
        let part = &mut self.parts[Self::part(key)];
        let Err(place) = part.binary_search(&key) else { return false };
        if part.len() == part.capacity() {
            // By an eighth, and not to twice its size.
            part.reserve_exact(part.len() / 8 + 4);
        }
        part.insert(place, key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn has_what_was_put_in_once_and_nothing_else_in_little_room() {
        let (mut keys, mut model) = (Keys::default(), BTreeSet::new());
        assert!(!keys.contains(0));
        let mut random = 7u64;
        for _ in 0..400_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The lower bits of such a number aren't random, and each comes about twice.
            let key = (random >> 46) << 46;
            assert_eq!(keys.insert(key), model.insert(key));
        }
        for key in [0, u64::MAX] {
            assert_eq!(keys.insert(key), model.insert(key));
        }
        assert!((0..1 << 18).all(|key: u64| keys.contains(key << 46) == model.contains(&(key << 46))));
        assert!(!keys.contains(1) && keys.contains(u64::MAX));
        let room: usize = keys.parts.iter().map(Vec::capacity).sum();
        assert!(room < model.len() * 3 / 2, "{room} for {}", model.len());
    }
}
