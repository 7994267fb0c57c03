//! The bytes of the journal: entries of one commit of one key, packed, compressed and checksummed. Knows nothing of tables,
//! transactions or sequences: entries are numbered from the start of their segment.
//!
//! | bytes | header |
//! |---|---|
//! | 0 | format version, now 1 |
//! | 1 | codec of the body: 0 none, 1 lz4 (block) |
//! | 2..6 | always 0: what is encrypted is the whole segment, see `seal` |
//! | 6..10 | number of entries |
//! | 10..14 | length of the body before compression |
//! | 14..22 | checksum: the first 8 bytes of SHA-256 over bytes 0..14 and the body as stored |
//!
//! The body is a postcard `Head`, then for each entry its length and the postcard of its `Body`. Lengths let a reader seek
//! past entries without decoding them. Numbers are little-endian.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidewaiter_core::journal::{Body, Packed};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::object::{Change, SyncDelta};
use tidewaiter_core::time::UnixMillis;

/// Where a segment is closed. Larger than lz4's window of 64 KiB, so that nothing is gained by more; a reader that wants one
/// entry unpacks all of it (measured: 0.2 to 0.3 ms).
const BODY_BYTES: usize = 256 * 1024;
/// The largest body that is written or unpacked. Only a single entry far over every default limit comes near it.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The variants of `Body::Delta` and `Body::Read`.
const DELTA: u8 = 0;
const READ: u8 = 3;

const VERSION: u8 = 1;
const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CHECKSUM_AT: usize = 14;
const BODY_AT: usize = 22;

/// What all entries of a segment have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) key: TypeKey,
    pub(super) generation: u64,
    pub(super) run: Option<u64>,
    pub(super) at: UnixMillis,
}

/// A segment ready to be stored.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
}

/// An entry that can't be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Larger than any reader would take.
    #[error("an entry of {0} bytes; at most {BODY_BYTES_MAX} are journaled")]
    TooLarge(usize),
    /// Not what `pack` made.
    #[error("the entries are not packed")]
    NotPacked,
    /// It can't be encoded.
    #[error("an entry can't be encoded")]
    Postcard(#[from] postcard::Error),
}

/// Packs deltas, as `Encoder` takes them.
///
/// # Errors
/// One is larger than any limit allows.
pub fn pack(deltas: &[SyncDelta]) -> Result<Packed, EncodeError> {
    pack_as(DELTA, deltas)
}

/// Packs objects that were read, as `Encoder` takes them.
///
/// # Errors
/// As `pack`.
pub fn pack_read(deltas: &[SyncDelta]) -> Result<Packed, EncodeError> {
    pack_as(READ, deltas)
}

fn pack_as(variant: u8, deltas: &[SyncDelta]) -> Result<Packed, EncodeError> {
    // Their size by the contract's rule is more than they take here, and what grows by itself takes twice as much.
    let mut bytes = Vec::with_capacity(deltas.iter().map(|delta| delta.size()).sum());
    for delta in deltas {
        let start = bytes.len();
        // The length, and the variant of `Body`.
        bytes.extend_from_slice(&[0, 0, 0, 0, variant]);
        bytes = postcard::to_extend(delta, bytes)?;
        let size = bytes.len() - start - 4;
        let length =
            u32::try_from(size).ok().filter(|_| size < BODY_BYTES_MAX / 2).ok_or(EncodeError::TooLarge(size))?;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    let deletes = deltas.iter().filter(|delta| matches!(delta.change, Change::Delete { .. })).count();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Packed { count: count(deltas.len()), deletes: count(deletes), bytes })
}

/// The deltas again, as far as they can be read.
pub fn unpack(packed: &Packed) -> impl Iterator<Item = SyncDelta> + '_ {
    let mut rest = packed.bytes.as_slice();
    let entries = std::iter::from_fn(move || next_slice(&mut rest).ok());
    entries.filter_map(|entry| match postcard::from_bytes(entry) {
        Ok(Body::Delta(delta) | Body::Read(delta)) => Some(delta),
        _ => None,
    })
}

/// What is wrong with a stored segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentDamage {
    /// Shorter than its header.
    #[error("it is cut off")]
    CutOff,
    /// Written by a newer host, or damaged.
    #[error("its format version is {0}, this host reads {VERSION}")]
    Version(u8),
    /// Written by a newer host, or damaged.
    #[error("its codec is {0}, which this host doesn't have")]
    Codec(u8),
    /// Encrypted with another key, or changed since.
    #[error("{0}")]
    Sealed(String),
    /// Changed since it was written.
    #[error("its checksum doesn't match")]
    Checksum,
    /// The checksum is right and the content makes no sense.
    #[error("its content is malformed: {0}")]
    Content(String),
}

impl From<postcard::Error> for SegmentDamage {
    fn from(error: postcard::Error) -> Self {
        Self::Content(error.to_string())
    }
}

/// Packs the entries of one commit into segments.
#[derive(Debug)]
pub(super) struct Encoder {
    head: Vec<u8>,
    body: Vec<u8>,
    count: u32,
    segments: Vec<Segment>,
}

impl Encoder {
    pub(super) fn new(head: &Head) -> Result<Self, EncodeError> {
        let head = postcard::to_stdvec(head)?;
        Ok(Self { body: head.clone(), head, count: 0, segments: Vec::new() })
    }

    /// Adds an entry. Answers whether that filled a segment: a good moment to let others work.
    pub(super) fn push(&mut self, entry: &Body) -> Result<bool, EncodeError> {
        let start = self.body.len();
        let mut body = std::mem::take(&mut self.body);
        body.extend_from_slice(&[0; 4]);
        self.body = postcard::to_extend(entry, body)?;
        let size = self.body.len() - start - 4;
        let length = u32::try_from(size).ok().filter(|_| self.body.len() <= BODY_BYTES_MAX);
        let length = length.ok_or(EncodeError::TooLarge(size))?;
        self.body[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
        let full = self.body.len() >= BODY_BYTES;
        if full {
            self.close();
        }
        Ok(full)
    }

    /// Adds packed entries, up to a full segment. Answers whether some are left.
    pub(super) fn push_packed(&mut self, rest: &mut &[u8]) -> Result<bool, EncodeError> {
        while !rest.is_empty() {
            let before = *rest;
            let entry = next_slice(rest).map_err(|_| EncodeError::NotPacked)?;
            self.body.extend_from_slice(&before[..entry.len() + 4]);
            self.count += 1;
            if self.body.len() >= BODY_BYTES {
                self.close();
                return Ok(!rest.is_empty());
            }
        }
        Ok(false)
    }

    pub(super) fn finish(mut self) -> Vec<Segment> {
        if self.count > 0 {
            self.close();
        }
        self.segments
    }

    fn close(&mut self) {
        let count = std::mem::take(&mut self.count);
        self.segments.push(Segment { bytes: seal(&self.body, count), count });
        self.body.truncate(self.head.len());
    }
}

fn seal(body: &[u8], count: u32) -> Vec<u8> {
    let packed = lz4_flex::block::compress(body);
    let (codec, stored) = if packed.len() < body.len() { (CODEC_LZ4, packed.as_slice()) } else { (CODEC_NONE, body) };
    let length = u32::try_from(body.len()).expect("bounded by BODY_BYTES_MAX");
    let mut bytes = Vec::with_capacity(BODY_AT + stored.len());
    bytes.extend_from_slice(&[VERSION, codec]);
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let checksum = checksum(&bytes, stored);
    bytes.extend_from_slice(&checksum);
    bytes.extend_from_slice(stored);
    bytes
}

fn checksum(header: &[u8], stored: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(header).chain_update(stored).finalize();
    std::array::from_fn(|i| digest[i])
}

/// A segment that was read, checked and unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub(super) head: Head,
    pub(super) count: u32,
    body: Vec<u8>,
    entries_at: usize,
}

impl Unpacked {
    pub(super) fn new(bytes: &[u8]) -> Result<Self, SegmentDamage> {
        let (header, stored) = bytes.split_at_checked(BODY_AT).ok_or(SegmentDamage::CutOff)?;
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        if header[0] != VERSION {
            return Err(SegmentDamage::Version(header[0]));
        }
        if checksum(&header[..CHECKSUM_AT], stored) != header[CHECKSUM_AT..] {
            return Err(SegmentDamage::Checksum);
        }
        if number(2) != 0 {
            return Err(SegmentDamage::Content(format!("its reserved bytes are {}", number(2))));
        }
        let (count, length) = (number(6), number(10) as usize);
        let body = decompressed(header[1], stored, length)?;
        let (head, entries) = postcard::take_from_bytes(&body)?;
        let entries_at = body.len() - entries.len();
        Ok(Self { head, count, entries_at, body })
    }

    /// The segment with another entry in one place.
    pub(super) fn replaced(&self, place: u32, entry: &Body) -> Result<Segment, SegmentDamage> {
        let mut body = self.body[..self.entries_at].to_vec();
        let mut rest = &self.body[self.entries_at..];
        let entry = postcard::to_stdvec(entry)?;
        for index in 0..self.count {
            let slice = next_slice(&mut rest)?;
            let slice = if index == place { entry.as_slice() } else { slice };
            let length = u32::try_from(slice.len()).map_err(|error| SegmentDamage::Content(error.to_string()))?;
            body.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(slice);
        }
        Ok(Segment { bytes: seal(&body, self.count), count: self.count })
    }

    /// The entries after the first `skip`, with their encoded size.
    pub(super) fn entries(&self, skip: u32) -> impl Iterator<Item = Result<(Body, usize), SegmentDamage>> {
        let mut rest = &self.body[self.entries_at..];
        let slices = (0..self.count).map(move |_| next_slice(&mut rest));
        slices.enumerate().filter(move |(index, slice)| *index >= skip as usize || slice.is_err()).map(|(_, slice)| {
            let slice = slice?;
            Ok((postcard::from_bytes(slice)?, slice.len()))
        })
    }
}

fn decompressed(codec: u8, stored: &[u8], length: usize) -> Result<Vec<u8>, SegmentDamage> {
    if length > BODY_BYTES_MAX {
        return Err(SegmentDamage::Content(format!("a body of {length} bytes; at most {BODY_BYTES_MAX} are read")));
    }
    let body = match codec {
        CODEC_NONE => stored.to_vec(),
        CODEC_LZ4 => {
            let body = lz4_flex::block::decompress(stored, length);
            body.map_err(|error| SegmentDamage::Content(error.to_string()))?
        }
        other => return Err(SegmentDamage::Codec(other)),
    };
    if body.len() == length {
        return Ok(body);
    }
    Err(SegmentDamage::Content(format!("a body of {} bytes where {length} were written", body.len())))
}

fn next_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], SegmentDamage> {
    let cut = || SegmentDamage::Content("entries are missing".into());
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
    let (entry, after) = after.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use tidewaiter_core::journal::Marker;
    use tidewaiter_core::object::{Attribute, Change, ConnectorObject, SyncDelta, Value, ValueMode};
    use tidewaiter_core::state::Actor;

    use super::*;

    fn head() -> Head {
        let key = TypeKey { connection: "hr".parse().unwrap(), object_type: "employee".parse().unwrap() };
        Head { key, generation: 3, run: Some(7), at: UnixMillis(1_772_000_000_000) }
    }

    fn deleted(uid: &str) -> Body {
        let change = Change::Delete { uid: uid.into(), name: None, last_known: None };
        Body::Delta(SyncDelta { object_class: "account".into(), change, source_time: None })
    }

    fn encoded(entries: &[Body]) -> Vec<Segment> {
        let mut encoder = Encoder::new(&head()).unwrap();
        for entry in entries {
            encoder.push(entry).unwrap();
        }
        encoder.finish()
    }

    fn decoded(segment: &Segment, skip: u32) -> Vec<Body> {
        Unpacked::new(&segment.bytes).unwrap().entries(skip).map(|entry| entry.unwrap().0).collect()
    }

    /// Every case of every enum in the journal. A change of the core that moves or removes one, or adds a field, turns this
    /// red: then the segment's version must count up, and both versions be read.
    #[test]
    fn the_encoding_of_entries_is_frozen() {
        let values = vec![
            Value::Text("t".into()),
            Value::Integer(-1),
            Value::Decimal("1.5".into()),
            Value::Real(0.5),
            Value::Bool(true),
            Value::Binary(vec![0, 255]),
            Value::Timestamp("z".into()),
            Value::Reference { object_class: "c".into(), uid: "u".into() },
            Value::Json("{}".into()),
            Value::Secret,
        ];
        let attribute = |mode| Attribute { name: "a".into(), values: vec![], mode };
        let modes = [ValueMode::Whole, ValueMode::Part, ValueMode::Added, ValueMode::Removed];
        let mut attributes: Vec<_> = modes.into_iter().map(attribute).collect();
        attributes[0].values = values;
        let object = ConnectorObject { uid: "u".into(), name: "n".into(), attributes };
        let small = ConnectorObject { uid: "u".into(), name: String::new(), attributes: vec![] };
        let delta = |change| SyncDelta { object_class: "c".into(), change, source_time: Some("s".into()) };
        let previous_uid = Some("p".to_owned());
        let gone = delta(Change::Delete { uid: "u".into(), name: None, last_known: Some(small.clone()) });
        let entries = [
            Body::Delta(delta(Change::Create(object))),
            Body::Delta(delta(Change::Update { object: small.clone(), previous_uid: previous_uid.clone() })),
            Body::Delta(delta(Change::CreateOrUpdate { object: small.clone(), previous_uid })),
            Body::Delta(gone.clone()),
            Body::Marker { marker: Marker::TokenSet, by: Actor::Host },
            Body::Marker { marker: Marker::TokenReset, by: Actor::Uid(1) },
            Body::Marker { marker: Marker::TokenReset, by: Actor::Api },
            Body::Marker { marker: Marker::Restored, by: Actor::Host },
            Body::Marker { marker: Marker::TokenRewound, by: Actor::Host },
            Body::Marker { marker: Marker::Discarded, by: Actor::Host },
            Body::Marker { marker: Marker::TokenLost, by: Actor::Host },
            Body::Erased { by: Actor::Host, at: UnixMillis(7) },
            Body::Read(delta(Change::CreateOrUpdate { object: small.clone(), previous_uid: None })),
            Body::Read(gone.clone()),
        ];
        let segment = &encoded(&entries)[0];
        assert_eq!(decoded(segment, 0), entries);
        let deltas: Vec<SyncDelta> = entries
            .iter()
            .filter_map(|body| match body {
                Body::Delta(delta) => Some(delta.clone()),
                _ => None,
            })
            .collect();
        let packed = pack(&deltas).unwrap();
        assert_eq!(unpack(&packed).collect::<Vec<_>>(), deltas);
        let mut encoder = Encoder::new(&head()).unwrap();
        assert!(!encoder.push_packed(&mut packed.bytes.as_slice()).unwrap());
        assert_eq!(encoder.finish()[0].bytes, encoded(&entries[..deltas.len()])[0].bytes, "packed or not");
        let read: Vec<SyncDelta> = entries[12..].iter().filter_map(|body| body.delta().cloned()).collect();
        let packed = pack_read(&read).unwrap();
        assert_eq!((packed.count, packed.deletes, unpack(&packed).collect::<Vec<_>>()), (2, 1, read));
        let mut encoder = Encoder::new(&head()).unwrap();
        assert!(!encoder.push_packed(&mut packed.bytes.as_slice()).unwrap());
        assert_eq!(encoder.finish()[0].bytes, encoded(&entries[12..])[0].bytes, "read, packed or not");
        let unpacked = Unpacked::new(&segment.bytes).unwrap();
        let hex = tidewaiter_core::text::hex(&unpacked.body);
        assert_eq!(hex, FROZEN, "version 1 of the segment");
    }

    const FROZEN: &str = "\
        02687208656d706c6f79656503010780e0f1b6926742000000000163000175016e0401610a00017401010203312e35030000\
        00000000e03f0401050200ff06017a070163017508027b7d09000161000101610002016100030101730e0000000001630101\
        7500000101700101730e00000000016302017500000101700101730f00000000016303017500010175000001017303000000\
        0100000400000001010101030000000101020300000001020003000000010300030000000104000300000001050003000000\
        02000e0c0000000301630201750000000101730f000000030163030175000101750000010173\
        ";

    #[test]
    fn packs_large_commits_into_several_segments_and_seeks_in_each() {
        let entries: Vec<Body> = (0..40_000).map(|i| deleted(&format!("uid-{i}-{}", "x".repeat(40)))).collect();
        let segments = encoded(&entries);
        assert!(segments.len() > 3, "{}", segments.len());
        assert_eq!(segments.iter().map(|segment| segment.count).sum::<u32>(), 40_000);
        let all: Vec<Body> = segments.iter().flat_map(|segment| decoded(segment, 0)).collect();
        assert_eq!(all, entries);
        assert_eq!(decoded(&segments[1], segments[1].count - 2), entries[all_before(&segments, 2) - 2..][..2]);
        assert_eq!(decoded(&segments[1], segments[1].count), []);
    }

    fn all_before(segments: &[Segment], index: usize) -> usize {
        segments[..index].iter().map(|segment| segment.count as usize).sum()
    }

    #[test]
    fn stores_what_does_not_compress_as_it_is() {
        let segment = &encoded(&[deleted("u")])[0];
        assert_eq!(segment.bytes[1], CODEC_NONE);
        assert_eq!(decoded(segment, 0), [deleted("u")]);
    }

    #[test]
    fn reports_every_flipped_byte_and_every_cut() {
        for entries in [vec![deleted("u")], vec![deleted(&"u".repeat(500))]] {
            let segment = &encoded(&entries)[0];
            for at in 0..segment.bytes.len() {
                let mut bytes = segment.bytes.clone();
                bytes[at] ^= 0x10;
                assert!(Unpacked::new(&bytes).is_err(), "byte {at} flipped");
                assert!(Unpacked::new(&segment.bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn refuses_what_only_a_newer_host_can_read() {
        let resealed = |at: usize, value: u8| {
            let mut bytes = encoded(&[deleted("u")]).remove(0).bytes;
            bytes[at] = value;
            let sum = checksum(&bytes[..CHECKSUM_AT], &bytes[BODY_AT..]);
            bytes[CHECKSUM_AT..BODY_AT].copy_from_slice(&sum);
            Unpacked::new(&bytes).unwrap_err()
        };
        assert_eq!(resealed(0, 2), SegmentDamage::Version(2));
        assert_eq!(resealed(1, 9), SegmentDamage::Codec(9));
        assert!(matches!(resealed(2, 5), SegmentDamage::Content(_)));
        assert!(matches!(resealed(13, 255), SegmentDamage::Content(_)), "a body of 4 GiB is not unpacked");
        assert!(matches!(resealed(10, 1), SegmentDamage::Content(_)), "another length");
    }

    #[test]
    fn a_count_that_lies_is_damage_and_not_a_panic() {
        let mut unpacked = Unpacked::new(&encoded(&[deleted("u")])[0].bytes).unwrap();
        unpacked.count = 3;
        assert!(unpacked.entries(1).next().unwrap().is_err());
    }

    #[test]
    fn refuses_an_entry_that_no_reader_would_unpack() {
        let mut encoder = Encoder::new(&head()).unwrap();
        let refused = encoder.push(&deleted(&"u".repeat(BODY_BYTES_MAX))).unwrap_err();
        assert!(refused.to_string().starts_with("an entry of 671088"), "{refused}");
    }
}
