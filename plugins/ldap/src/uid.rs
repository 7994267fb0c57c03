//! The identifiers of entries as texts, and as the 16 bytes that synchronisation tells of them.

use tidewaiter_connector::Error;

/// How the attribute that is the uid writes the 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `entryUUID`: 8, 4, 4, 4 and 12 digits.
    Uuid,
    /// `nsUniqueId`: four times 8 digits.
    Unique,
}

impl Form {
    /// None: the attribute is no such identifier.
    pub(crate) fn of(attribute: &str) -> Option<Self> {
        match attribute {
            name if name.eq_ignore_ascii_case("entryUUID") => Some(Self::Uuid),
            name if name.eq_ignore_ascii_case("nsUniqueId") => Some(Self::Unique),
            _ => None,
        }
    }

    pub(crate) fn text(self, bytes: &[u8]) -> Result<String, Error> {
        if bytes.len() != 16 {
            return Err(Error::other(format!("the server sent an identifier of {} bytes", bytes.len())));
        }
        let groups: &[usize] = match self {
            Self::Uuid => &[4, 6, 8, 10],
            Self::Unique => &[4, 8, 12],
        };
        let mut text = String::with_capacity(36);
        for (place, byte) in bytes.iter().enumerate() {
            if groups.contains(&place) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_both_forms() {
        let bytes: Vec<u8> = (0..16).map(|n| n * 16 + n).collect();
        assert_eq!(Form::Uuid.text(&bytes).unwrap(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(Form::Unique.text(&bytes).unwrap(), "00112233-44556677-8899aabb-ccddeeff");
        assert!(Form::Uuid.text(&bytes[1..]).is_err());
        assert_eq!(Form::of("ENTRYUUID"), Some(Form::Uuid));
        assert_eq!(Form::of("uid"), None);
    }
}
