//! Building and taking apart what the protocol is written in. The encoding is the crate's; this owns the few shapes that LDAP uses of
//! it, and how much of it is taken from a server.

use bytes::BytesMut;
use lber::common::TagClass;
use lber::structure::{PL, StructureTag};
use tidewaiter_connector::Error;

/// A longer message is none of a directory that anybody could work with, and would be too much for a sandbox.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Nor has one more pieces: each takes far more room than it has bytes.
const PIECES_MAX: usize = 1 << 20;
/// No message of the protocol is nested deeper.
const DEPTH_MAX: usize = 16;

/// A piece of a message.
pub(crate) type Tag = StructureTag;

const BOOLEAN: u64 = 1;
const INTEGER: u64 = 2;
const OCTETS: u64 = 4;
const ENUMERATED: u64 = 10;
const SEQUENCE: u64 = 16;

fn tag(class: TagClass, id: u64, payload: PL) -> Tag {
    Tag { class, id, payload }
}

pub(crate) fn octets(bytes: impl Into<Vec<u8>>) -> Tag {
    tag(TagClass::Universal, OCTETS, PL::P(bytes.into()))
}

pub(crate) fn boolean(value: bool) -> Tag {
    tag(TagClass::Universal, BOOLEAN, PL::P(vec![if value { 0xff } else { 0 }]))
}

pub(crate) fn integer(value: i32) -> Tag {
    tag(TagClass::Universal, INTEGER, PL::P(two_s_complement(value)))
}

pub(crate) fn enumerated(value: u8) -> Tag {
    tag(TagClass::Universal, ENUMERATED, PL::P(vec![value]))
}

pub(crate) fn sequence(parts: Vec<Tag>) -> Tag {
    tag(TagClass::Universal, SEQUENCE, PL::C(parts))
}

/// One of the protocol's operations.
pub(crate) fn application(id: u64, payload: PL) -> Tag {
    tag(TagClass::Application, id, payload)
}

/// A part that is told apart by its number.
pub(crate) fn context(id: u64, payload: PL) -> Tag {
    tag(TagClass::Context, id, payload)
}

/// The shortest form.
fn two_s_complement(value: i32) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let is_spare = |pair: &[u8]| pair[0] == 0 && pair[1] < 0x80 || pair[0] == 0xff && pair[1] >= 0x80;
    let spare = bytes.windows(2).take_while(|pair| is_spare(pair)).count();
    bytes[spare..].to_vec()
}

/// As it is sent.
pub(crate) fn encoded(tag: Tag) -> Result<Vec<u8>, Error> {
    let mut bytes = BytesMut::new();
    lber::write::encode_into(&mut bytes, tag)?;
    Ok(bytes.into())
}

/// How long the message is that these bytes begin with; none: too few of them are there to tell.
pub(crate) fn message_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some((header, length)) = header(bytes)? else { return Ok(None) };
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::other(format!("the server sends a message of over {MESSAGE_BYTES_MAX} bytes")));
    }
    Ok(Some(header + length))
}

/// The length of what says how long a piece is, and that length.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Error> {
    let [_, first, rest @ ..] = bytes else { return Ok(None) };
    let count = usize::from(first & 0x7f);
    match first {
        0..0x80 => Ok(Some((2, count))),
        // Of no length of its own, or of one that nothing has.
        0x80 | 0x85.. => Err(malformed()),
        _ if rest.len() < count => Ok(None),
        _ => Ok(Some((2 + count, rest[..count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte))))),
    }
}

/// A whole message. What is nested deeper than any, or has too many pieces, is refused before it is taken apart, because that is done by
/// recursion, and takes room.
pub(crate) fn decoded(bytes: &[u8]) -> Result<Tag, Error> {
    check_shape(bytes)?;
    match lber::parse::parse_tag(bytes) {
        Ok(([], tag)) => Ok(tag),
        _ => Err(malformed()),
    }
}

fn check_shape(bytes: &[u8]) -> Result<(), Error> {
    let (mut at, mut pieces, mut ends) = (0, 0, Vec::with_capacity(DEPTH_MAX));
    while at < bytes.len() {
        pieces += 1;
        if pieces > PIECES_MAX {
            return Err(Error::other(format!("the server sends a message of over {PIECES_MAX} pieces")));
        }
        while ends.last().is_some_and(|end| at >= *end) {
            ends.pop();
        }
        let (header, length) = header(&bytes[at..])?.ok_or_else(malformed)?;
        let is_constructed = bytes[at] & 0x20 != 0;
        at += header;
        let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(malformed)?;
        if is_constructed {
            if ends.len() == DEPTH_MAX {
                return Err(malformed());
            }
            ends.push(end);
        } else {
            at = end;
        }
    }
    Ok(())
}

pub(crate) fn malformed() -> Error {
    Error::other("the server sent something that is no LDAP")
}

/// The parts of a piece, one after the other.
pub(crate) struct Parts(std::vec::IntoIter<Tag>);

impl Parts {
    pub(crate) fn of(tag: Tag) -> Result<Self, Error> {
        tag.expect_constructed().map(|parts| Self(parts.into_iter())).ok_or_else(malformed)
    }

    pub(crate) fn part(&mut self) -> Result<Tag, Error> {
        self.0.next().ok_or_else(malformed)
    }

    /// The next one, if it is of this number.
    pub(crate) fn optional(&mut self, class: TagClass, id: u64) -> Option<Tag> {
        let is_it = self.0.as_slice().first().is_some_and(|tag| tag.class == class && tag.id == id);
        if is_it { self.0.next() } else { None }
    }

    /// The next one, if it is told apart by this number.
    pub(crate) fn context(&mut self, id: u64) -> Option<Tag> {
        self.optional(TagClass::Context, id)
    }

    pub(crate) fn optional_octets(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.optional(TagClass::Universal, OCTETS).map(bytes).transpose()
    }

    pub(crate) fn optional_boolean(&mut self) -> Result<Option<bool>, Error> {
        let tag = self.optional(TagClass::Universal, BOOLEAN);
        tag.map(|tag| Ok(bytes(tag)?.first().is_some_and(|byte| *byte != 0))).transpose()
    }

    pub(crate) fn octets(&mut self) -> Result<Vec<u8>, Error> {
        bytes(self.part()?)
    }

    pub(crate) fn text(&mut self) -> Result<String, Error> {
        text(self.octets()?)
    }

    /// An integer, or one of a list of choices.
    pub(crate) fn number(&mut self) -> Result<i64, Error> {
        number(&self.octets()?)
    }
}

impl Iterator for Parts {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        self.0.next()
    }
}

pub(crate) fn bytes(tag: Tag) -> Result<Vec<u8>, Error> {
    tag.expect_primitive().ok_or_else(malformed)
}

pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::other("the server sent a name that is not UTF-8"))
}

fn number(bytes: &[u8]) -> Result<i64, Error> {
    match bytes {
        [] => Err(malformed()),
        _ if bytes.len() > 8 => Err(malformed()),
        [first, ..] => {
            let sign = if first & 0x80 == 0 { 0 } else { -1 };
            Ok(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        for value in [0, 1, 127, 128, 255, 256, 65_535, 1 << 24, i32::MAX, -1, -128, -129, i32::MIN] {
            let sent = encoded(sequence(vec![integer(value)])).unwrap();
            let mut parts = Parts::of(decoded(&sent).unwrap()).unwrap();
            assert_eq!(parts.number().unwrap(), i64::from(value));
        }
        assert_eq!(encoded(integer(127)).unwrap(), [2, 1, 127]);
        assert_eq!(encoded(integer(128)).unwrap(), [2, 2, 0, 128]);
        assert_eq!(encoded(integer(-128)).unwrap(), [2, 1, 128]);
    }

    #[test]
    fn messages_are_taken_whole_and_no_deeper_or_longer_than_there_are_any() {
        let message =
            encoded(sequence(vec![octets(vec![b'x'; 300]), sequence(Vec::new()), sequence(vec![octets("y")])]));
        let message = message.unwrap();
        for length in 0..4 {
            assert_eq!(message_length(&message[..length]).unwrap(), None);
        }
        assert_eq!(message_length(&message[..4]).unwrap(), Some(message.len()));
        assert!(decoded(&message).is_ok());
        assert!(decoded(&message[..message.len() - 1]).is_err());
        let nested = |depth: usize| (0..depth).fold(octets("x"), |inner, _| sequence(vec![inner]));
        assert!(decoded(&encoded(nested(DEPTH_MAX)).unwrap()).is_ok());
        assert!(decoded(&encoded(nested(DEPTH_MAX + 1)).unwrap()).is_err());
        // Many that are empty are not deep.
        assert!(decoded(&encoded(sequence(vec![sequence(Vec::new()); 1000])).unwrap()).is_ok());
        let many = encoded(sequence(vec![octets(""); PIECES_MAX])).unwrap();
        assert!(decoded(&many).unwrap_err().message().contains("over 1048576 pieces"));
        // Deep enough to end a program that takes it apart by recursion.
        assert!(decoded(&[0x30, 0x80].repeat(1 << 20)).is_err());
        assert!(decoded(&[0x30, 0x84, 0x00, 0x10, 0x00, 0x00].repeat(1 << 17)).is_err());
        let error = message_length(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]).unwrap_err();
        assert!(error.message().contains("over 33554432 bytes"), "{error}");
    }
}
