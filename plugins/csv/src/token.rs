//! The sync token: up to which time changes were delivered, and which rows of just that time. Owns its bytes.
//!
//! Format `csv1`, all numbers little endian: the 4 bytes `csv1`; the time in microseconds since 1970 (8, signed); one byte for
//! the form of what follows. Form 0: the digests of the delivered rows of that time, ascending (8 each). Form 1: the largest
//! delivered digest (8), then [`BUCKETS`] buckets of count (4), sum (8) and check (4).

use tidewaiter_connector::{Error, SyncToken};

/// The name of the format.
pub(crate) const FORMAT: &str = "csv1";
/// As many rows of one time are named one by one.
pub(crate) const EXACT_MAX: usize = 4000;
/// Beyond that they are summed up in so many buckets, by the highest bits of their digest.
pub(crate) const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 11;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: i64,
    pub(crate) delivered: Delivered,
}

/// Which rows of the token's time were delivered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Delivered {
    /// Those with these digests, ascending.
    Exact(Vec<u64>),
    /// Those up to a digest.
    Summed(Summed),
}

/// Delivered rows that are too many to be named.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summed {
    pub(crate) up_to: u64,
    pub(crate) buckets: Vec<Bucket>,
}

/// The rows whose digests begin with the same bits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Bucket {
    count: u32,
    sum: u64,
    check: u32,
}

/// How the rows in the files differ from those that were delivered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Difference {
    /// Not at all, or by one that went: all that are there were delivered.
    NothingNew,
    /// By this one, which came.
    Came(u64),
    /// By more than can be told apart.
    Unknown,
}

/// The bucket that a digest belongs to.
pub(crate) fn bucket_of(digest: u64) -> usize {
    usize::try_from(digest >> (u64::BITS - BUCKET_BITS)).unwrap_or(0)
}

impl Bucket {
    pub(crate) fn add(&mut self, digest: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(digest);
        self.check = self.check.wrapping_add(scrambled(digest));
    }

    /// `digests`: those of this bucket that the files have, up to the largest delivered one.
    pub(crate) fn difference(&self, digests: &[u64]) -> Difference {
        let mut now = Self::default();
        digests.iter().for_each(|digest| now.add(*digest));
        if now == *self {
            return Difference::NothingNew;
        }
        if now.count.wrapping_add(1) == self.count && self.is_more_by(&now).is_some() {
            return Difference::NothingNew;
        }
        match now.is_more_by(self) {
            Some(came) if now.count == self.count.wrapping_add(1) && digests.contains(&came) => Difference::Came(came),
            _ => Difference::Unknown,
        }
    }

    /// The one digest that this has and the other has not, if that is the whole difference.
    fn is_more_by(&self, other: &Self) -> Option<u64> {
        let digest = self.sum.wrapping_sub(other.sum);
        (self.check.wrapping_sub(other.check) == scrambled(digest)).then_some(digest)
    }
}

/// Not linear in its argument, so that sums of it and sums of the argument are two checks.
fn scrambled(digest: u64) -> u32 {
    let mixed = (digest ^ (digest >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    u32::try_from((mixed ^ (mixed >> 29)) & u64::from(u32::MAX)).unwrap_or(0)
}

impl Summed {
    pub(crate) fn new() -> Self {
        Self { up_to: 0, buckets: vec![Bucket::default(); BUCKETS] }
    }

    pub(crate) fn add(&mut self, digest: u64) {
        self.up_to = self.up_to.max(digest);
        self.buckets[bucket_of(digest)].add(digest);
    }
}

impl From<&Token> for SyncToken {
    fn from(token: &Token) -> Self {
        let mut bytes = FORMAT.as_bytes().to_vec();
        bytes.extend_from_slice(&token.at.to_le_bytes());
        match &token.delivered {
            Delivered::Exact(digests) => {
                bytes.push(0);
                digests.iter().for_each(|digest| bytes.extend_from_slice(&digest.to_le_bytes()));
            }
            Delivered::Summed(summed) => {
                bytes.push(1);
                bytes.extend_from_slice(&summed.up_to.to_le_bytes());
                for bucket in &summed.buckets {
                    bytes.extend_from_slice(&bucket.count.to_le_bytes());
                    bytes.extend_from_slice(&bucket.sum.to_le_bytes());
                    bytes.extend_from_slice(&bucket.check.to_le_bytes());
                }
            }
        }
        bytes.into()
    }
}

impl TryFrom<&SyncToken> for Token {
    type Error = Error;

    fn try_from(token: &SyncToken) -> Result<Self, Error> {
        let mut bytes = token.as_binary()?;
        let invalid = || Error::invalid_sync_token("the sync token is not one of the CSV connector (format csv1)");
        let token = read(&mut bytes).ok_or_else(invalid)?;
        if bytes.is_empty() { Ok(token) } else { Err(invalid()) }
    }
}

fn read(bytes: &mut &[u8]) -> Option<Token> {
    *bytes = bytes.strip_prefix(FORMAT.as_bytes())?;
    let at = i64::from_le_bytes(take(bytes)?);
    let delivered = match take::<1>(bytes)? {
        [0] => {
            let mut digests = Vec::with_capacity(bytes.len() / 8);
            while !bytes.is_empty() {
                digests.push(u64::from_le_bytes(take(bytes)?));
            }
            if !digests.is_sorted_by(|a, b| a < b) {
                return None;
            }
            Delivered::Exact(digests)
        }
        [1] => {
            let up_to = u64::from_le_bytes(take(bytes)?);
            let mut bucket = || {
                Some(Bucket {
                    count: u32::from_le_bytes(take(bytes)?),
                    sum: u64::from_le_bytes(take(bytes)?),
                    check: u32::from_le_bytes(take(bytes)?),
                })
            };
            let buckets = (0..BUCKETS).map(|_| bucket()).collect::<Option<_>>()?;
            Delivered::Summed(Summed { up_to, buckets })
        }
        _ => return None,
    };
    Some(Token { at, delivered })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(digests: &[u64]) -> Summed {
        let mut summed = Summed::new();
        digests.iter().for_each(|digest| summed.add(*digest));
        summed
    }

    #[test]
    fn tokens_come_back_as_they_went() {
        for delivered in [
            Delivered::Exact(vec![]),
            Delivered::Exact(vec![1, 5, u64::MAX]),
            Delivered::Summed(summed(&[3, 1 << 60, u64::MAX])),
        ] {
            let token = Token { at: -1, delivered };
            let bytes = SyncToken::from(&token);
            assert!(bytes.as_binary().unwrap().len() < 64 << 10);
            assert_eq!(Token::try_from(&bytes), Ok(token));
        }
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        let exact = Token { at: 7, delivered: Delivered::Exact(vec![1, 2]) };
        let SyncToken::Binary(good) = SyncToken::from(&exact) else { unreachable!() };
        let mut unsorted = good.clone();
        unsorted[13] = 9;
        let other_format = [b"csv2".as_slice(), &good[4..]].concat();
        let other_form = [&good[..12], &[2]].concat();
        for bytes in [vec![], good[..good.len() - 1].to_vec(), good[..12].to_vec(), unsorted, other_format, other_form]
        {
            assert!(Token::try_from(&SyncToken::Binary(bytes)).is_err());
        }
        assert!(Token::try_from(&SyncToken::Integer(7)).is_err());
        let summed = SyncToken::from(&Token { at: 7, delivered: Delivered::Summed(summed(&[1])) });
        let longer = [summed.as_binary().unwrap(), &[0]].concat();
        assert!(Token::try_from(&SyncToken::Binary(longer)).is_err());
    }

    #[test]
    fn a_bucket_tells_one_difference() {
        let delivered = [11, 22, 33];
        let bucket = summed(&delivered).buckets[0];
        assert_eq!(bucket.difference(&delivered), Difference::NothingNew);
        assert_eq!(bucket.difference(&[11, 33]), Difference::NothingNew);
        assert_eq!(bucket.difference(&[11, 22, 33, 44]), Difference::Came(44));
        for other in [&[11][..], &[11, 22, 44], &[11, 44], &[11, 22, 33, 44, 55], &[1, 2, 3, 4], &[]] {
            assert_eq!(bucket.difference(other), Difference::Unknown, "{other:?}");
        }
    }
}
