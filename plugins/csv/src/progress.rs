//! What was delivered: from a token to the rows that are still to come, and from delivered rows to the next token. Owns where a
//! resume point can stand; it knows nothing of files.

use crate::token::{BUCKETS, Delivered, Difference, EXACT_MAX, Summed, Token, bucket_of};

/// A changed row, before its cells are read: its position (time, digest) and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) at: i64,
    pub(crate) digest: u64,
    pub(crate) file: u32,
    pub(crate) length: u32,
    pub(crate) offset: u64,
}

/// Brings the rows into the order of delivery. Rows that are equal in every cell are one change.
pub(crate) fn order(entries: &mut Vec<Entry>) {
    entries.sort_unstable();
    entries.dedup_by_key(|entry| (entry.at, entry.digest));
}

/// What was delivered up to now of the latest time.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    at: i64,
    /// The rows of that time that the run's token has as delivered, ascending.
    known: Vec<u64>,
    /// The largest of them that the files still have.
    known_up_to: Option<u64>,
    /// Those of them that the files still have: what is summed up.
    present: Vec<u64>,
    /// The rows of that time that this run delivered, ascending.
    new: Vec<u64>,
    /// `present` and `new`, once they are too many to be named.
    summed: Option<Summed>,
}

impl Progress {
    /// Takes out of the ordered rows those that the token has as delivered. No row may be older than the token.
    pub(crate) fn resume(token: Option<Token>, entries: &mut Vec<Entry>) -> Self {
        let Some(Token { at, delivered }) = token else {
            return Self::default();
        };
        let same_time = entries.partition_point(|entry| entry.at <= at);
        let there: Vec<u64> = entries[..same_time].iter().map(|entry| entry.digest).collect();
        let (known, present) = match delivered {
            Delivered::Exact(known) => {
                let is_known = |digest: &u64| known.binary_search(digest).is_ok();
                let present = there.into_iter().filter(is_known).collect();
                (known, present)
            }
            Delivered::Summed(summed) => {
                let present = recognise(&summed, &there);
                (present.clone(), present)
            }
        };
        entries.retain(|entry| entry.at > at || present.binary_search(&entry.digest).is_err());
        Self { at, known, known_up_to: present.last().copied(), present, ..Self::default() }
    }

    /// The next row was delivered.
    pub(crate) fn advance(&mut self, entry: &Entry) {
        if entry.at != self.at {
            *self = Self { at: entry.at, ..Self::default() };
        }
        self.new.push(entry.digest);
        if let Some(summed) = &mut self.summed {
            summed.add(entry.digest);
        }
    }

    /// The resume point after the row delivered last, which may be the last one of its time. None: there is none here.
    pub(crate) fn token(&mut self, last_of_its_time: bool) -> Option<Token> {
        let delivered = if self.known.len() + self.new.len() <= EXACT_MAX {
            let mut digests = [self.known.as_slice(), &self.new].concat();
            digests.sort_unstable();
            Delivered::Exact(digests)
        } else if last_of_its_time || self.new.last() >= self.known_up_to.as_ref() {
            Delivered::Summed(self.sum().clone())
        } else {
            return None;
        };
        Some(Token { at: self.at, delivered })
    }

    fn sum(&mut self) -> &Summed {
        let (present, new) = (&self.present, &self.new);
        self.summed.get_or_insert_with(|| {
            let mut summed = Summed::new();
            present.iter().chain(new).for_each(|digest| summed.add(*digest));
            summed
        })
    }
}

/// Those of the rows that were delivered, by the sums of their buckets. Where a bucket differs by more than one row, none of its
/// rows is recognised: it is delivered again.
fn recognise(summed: &Summed, there: &[u64]) -> Vec<u64> {
    let up_to = there.partition_point(|digest| *digest <= summed.up_to);
    let mut rest = &there[..up_to];
    let mut present = Vec::with_capacity(up_to);
    for bucket in 0..BUCKETS {
        let (digests, others) = rest.split_at(rest.partition_point(|digest| bucket_of(*digest) == bucket));
        rest = others;
        match summed.buckets[bucket].difference(digests) {
            Difference::NothingNew => present.extend_from_slice(digests),
            Difference::Came(new) => present.extend(digests.iter().filter(|digest| **digest != new)),
            Difference::Unknown => {}
        }
    }
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(at: i64, digests: impl IntoIterator<Item = u64>) -> Vec<Entry> {
        let entry = |digest| Entry { at, digest, file: 0, length: 1, offset: digest };
        digests.into_iter().map(entry).collect()
    }

    /// Digests that look like digests.
    fn digest(number: u64) -> u64 {
        number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn deliver(token: Option<Token>, mut there: Vec<Entry>) -> (Vec<u64>, Option<Token>) {
        order(&mut there);
        let mut progress = Progress::resume(token.clone(), &mut there);
        there.iter().for_each(|entry| progress.advance(entry));
        let next = if there.is_empty() { token } else { progress.token(true) };
        (there.iter().map(|entry| entry.digest).collect(), next)
    }

    #[test]
    fn a_late_row_among_many_of_one_time_comes_alone() {
        let all: Vec<u64> = (0..10_000).map(digest).collect();
        let (first, token) = deliver(None, entries(5, all.clone()));
        assert_eq!(first.len(), 10_000);
        assert!(matches!(token, Some(Token { delivered: Delivered::Summed(_), .. })));
        let (second, token) = deliver(token, entries(5, all.iter().copied().chain([digest(77_777)])));
        assert_eq!(second, [digest(77_777)]);
        let (third, _) = deliver(token, entries(5, all.iter().copied().chain([digest(77_777)])));
        assert_eq!(third, [] as [u64; 0]);
    }

    #[test]
    fn rows_that_move_on_to_a_later_time_repeat_nothing() {
        let all: Vec<u64> = (0..10_000).map(digest).collect();
        let (_, token) = deliver(None, entries(5, all.clone()));
        let mut there = entries(5, all[3..].iter().copied());
        there.extend(entries(6, [1, 2, 3]));
        assert_eq!(deliver(token, there).0, [1, 2, 3]);
    }

    #[test]
    fn a_bucket_with_two_differences_comes_again_and_no_other() {
        let all: Vec<u64> = (0..10_000).map(digest).collect();
        let (_, token) = deliver(None, entries(5, all.clone()));
        let bucket = bucket_of(all[0]);
        let mates: Vec<u64> = all.iter().copied().filter(|digest| bucket_of(*digest) == bucket).collect();
        assert!(mates.len() > 2);
        let without_two = all.iter().copied().filter(|digest| !mates[..2].contains(digest));
        let mut again = mates[2..].to_vec();
        again.sort_unstable();
        assert_eq!(deliver(token, entries(5, without_two)).0, again);
    }

    #[test]
    fn there_is_no_resume_point_where_named_and_summed_rows_mix() {
        let all: Vec<u64> = (0..5_000).map(digest).collect();
        let (_, token) = deliver(None, entries(5, all[..3_999].iter().copied()));
        let mut there = entries(5, all.clone());
        order(&mut there);
        let known_up_to = all[..3_999].iter().copied().max();
        let mut progress = Progress::resume(token, &mut there);
        for (index, entry) in there.iter().enumerate() {
            progress.advance(entry);
            let resumable = index == 0 || Some(entry.digest) >= known_up_to;
            assert_eq!(progress.token(false).is_some(), resumable, "{index}");
        }
        assert!(progress.token(true).is_some());
    }

    #[test]
    fn every_resume_point_leads_to_exactly_the_rest() {
        let mut all = entries(4, (0..50).map(digest));
        all.extend(entries(5, (100..9_000).map(digest)));
        all.extend(entries(6, (10_000..10_050).map(digest)));
        order(&mut all);
        let mut progress = Progress::default();
        for (index, entry) in all.iter().enumerate() {
            progress.advance(entry);
            if index % 997 != 0 && index > 60 {
                continue;
            }
            let mut rest = all.clone();
            rest.retain(|other| other.at >= entry.at);
            let token = progress.token(false);
            Progress::resume(token, &mut rest);
            assert_eq!(rest, all[index + 1..], "{index}");
        }
    }
}
