//! What a column of an answer is, and the text of its cells: rows come in the protocol's binary form, which loses nothing.

use std::fmt::Write;
use std::ops::Range;

use mysql_common::constants::{ColumnFlags, ColumnType};
use mysql_common::io::ParseBuf;
use tidewaiter_connector::cells::CellType;

use crate::database::Column;

/// The collation of what is no text.
const BINARY: u16 = 63;
/// How the extended metadata mark the name of a type, and of a format.
const TYPE: u8 = 0;
const FORMAT: u8 = 1;
/// What comes before the values of a row begins with two bits that stand for no column.
const BITMAP_OFFSET: usize = 2;

/// A column of an answer.
#[derive(Debug)]
pub(super) struct Field {
    name: String,
    wire: ColumnType,
    flags: ColumnFlags,
    collation: u16,
    length: u32,
    decimals: u8,
    /// What it is on top of its type: `uuid`, `inet6`, `json`.
    is: String,
}

impl Field {
    /// From a packet that describes it; none if that is none.
    pub(super) fn read(packet: &[u8], has_metadata: bool) -> Option<Self> {
        let mut packet = ParseBuf(packet);
        // Catalogue, schema, table and its alias; then the alias of the column, and its name.
        for _ in 0..4 {
            packet.checked_eat_lenenc_str()?;
        }
        let name = String::from_utf8_lossy(packet.checked_eat_lenenc_str()?).into_owned();
        packet.checked_eat_lenenc_str()?;
        let mut is = String::new();
        if has_metadata {
            let mut chunks = ParseBuf(packet.checked_eat_lenenc_str()?);
            while let Some([kind]) = chunks.checked_eat(1) {
                let text = chunks.checked_eat_lenenc_str()?;
                if matches!(*kind, TYPE | FORMAT) {
                    is = String::from_utf8_lossy(text).into_owned();
                }
            }
        }
        let &[_, c0, c1, l0, l1, l2, l3, wire, f0, f1, decimals, ..] = packet.checked_eat(13)? else { return None };
        Some(Self {
            name,
            wire: ColumnType::try_from(wire).ok()?,
            flags: ColumnFlags::from_bits_truncate(u16::from_le_bytes([f0, f1])),
            collation: u16::from_le_bytes([c0, c1]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            decimals,
            is,
        })
    }

    fn is_binary(&self) -> bool {
        let is_plain = self.is.is_empty() || self.wire == ColumnType::MYSQL_TYPE_GEOMETRY;
        self.collation == BINARY && is_plain
    }

    /// The name of its type, as a table is made with.
    fn type_name(&self) -> String {
        use ColumnType as Wire;
        let unsigned = if self.flags.contains(ColumnFlags::UNSIGNED_FLAG) { " unsigned" } else { "" };
        let name = match self.wire {
            Wire::MYSQL_TYPE_GEOMETRY => "binary",
            _ if !self.is.is_empty() => self.is.as_str(),
            _ if self.flags.contains(ColumnFlags::ENUM_FLAG) => "enum",
            _ if self.flags.contains(ColumnFlags::SET_FLAG) => "set",
            Wire::MYSQL_TYPE_TINY if self.length == 1 => "boolean",
            Wire::MYSQL_TYPE_TINY => return format!("tinyint{unsigned}"),
            Wire::MYSQL_TYPE_SHORT => return format!("smallint{unsigned}"),
            Wire::MYSQL_TYPE_INT24 => return format!("mediumint{unsigned}"),
            Wire::MYSQL_TYPE_LONG => return format!("int{unsigned}"),
            Wire::MYSQL_TYPE_LONGLONG => return format!("bigint{unsigned}"),
            Wire::MYSQL_TYPE_DECIMAL | Wire::MYSQL_TYPE_NEWDECIMAL => return format!("decimal({})", self.decimals),
            Wire::MYSQL_TYPE_TIMESTAMP => return format!("timestamp({})", self.digits()),
            Wire::MYSQL_TYPE_DATETIME => return format!("datetime({})", self.digits()),
            Wire::MYSQL_TYPE_FLOAT => "float",
            Wire::MYSQL_TYPE_DOUBLE => "double",
            Wire::MYSQL_TYPE_YEAR => "year",
            Wire::MYSQL_TYPE_DATE => "date",
            Wire::MYSQL_TYPE_TIME => "time",
            Wire::MYSQL_TYPE_BIT => "bit",
            _ if self.is_binary() => "binary",
            _ => "text",
        };
        name.to_owned()
    }

    /// The digits after the point that its times have.
    fn digits(&self) -> usize {
        usize::from(self.decimals).min(6)
    }

    fn cell_type(&self, type_name: &str) -> CellType {
        match type_name {
            "boolean" => CellType::Boolean,
            "bit" if self.length == 1 => CellType::Boolean,
            // What the contract's integers can't hold.
            "bigint unsigned" => CellType::Decimal,
            "bit" if self.length == 64 => CellType::Decimal,
            "float" | "double" => CellType::Real,
            "year" | "bit" => CellType::Integer,
            "json" => CellType::Json,
            "binary" => CellType::Binary,
            name if name.starts_with("decimal") => CellType::Decimal,
            name if name.starts_with("timestamp") || name.starts_with("datetime") => CellType::Timestamp,
            name if Kind::is_whole(name) => CellType::Integer,
            _ => CellType::Text,
        }
    }

    pub(super) fn column(self) -> Column {
        let type_name = self.type_name();
        Column {
            cell: self.cell_type(&type_name),
            members: (type_name == "set").then_some(members),
            is_time: type_name.starts_with("timestamp"),
            is_number: Kind::is_whole(&type_name),
            is_local: type_name.starts_with("datetime"),
            collation: None,
            name: self.name,
            type_name,
        }
    }

    /// The texts of a row's cells, one after the other, and where each is; none if the row isn't one of these fields.
    pub(super) fn cells(
        fields: &[Self],
        row: &[u8],
        text: &mut Vec<u8>,
        cells: &mut Vec<Option<Range<usize>>>,
    ) -> Option<()> {
        text.clear();
        cells.clear();
        let mut row = ParseBuf(row);
        let nulls = row.checked_eat((fields.len() + BITMAP_OFFSET).div_ceil(8))?;
        for (place, field) in fields.iter().enumerate() {
            let bit = place + BITMAP_OFFSET;
            let is_null = nulls[bit / 8] >> (bit % 8) & 1 == 1;
            let begin = text.len();
            if !is_null {
                field.tell(&mut row, &mut Text(text))?;
            }
            cells.push((!is_null).then_some(begin..text.len()));
        }
        Some(())
    }

    /// Takes the value of a cell, and adds its text.
    fn tell(&self, row: &mut ParseBuf<'_>, text: &mut Text<'_>) -> Option<()> {
        use ColumnType as Wire;
        let is_signed = !self.flags.contains(ColumnFlags::UNSIGNED_FLAG);
        match self.wire {
            Wire::MYSQL_TYPE_TINY => text.whole(i64::from(i8::from_le_bytes(bytes(row)?)), is_signed, 8),
            Wire::MYSQL_TYPE_SHORT | Wire::MYSQL_TYPE_YEAR => {
                text.whole(i64::from(i16::from_le_bytes(bytes(row)?)), is_signed, 16)
            }
            Wire::MYSQL_TYPE_LONG | Wire::MYSQL_TYPE_INT24 => {
                text.whole(i64::from(i32::from_le_bytes(bytes(row)?)), is_signed, 32)
            }
            Wire::MYSQL_TYPE_LONGLONG => text.whole(i64::from_le_bytes(bytes(row)?), is_signed, 64),
            Wire::MYSQL_TYPE_FLOAT => write!(text, "{}", f32::from_le_bytes(bytes(row)?)).ok(),
            Wire::MYSQL_TYPE_DOUBLE => write!(text, "{}", f64::from_le_bytes(bytes(row)?)).ok(),
            Wire::MYSQL_TYPE_DATE => text.date(short(row)?),
            Wire::MYSQL_TYPE_DATETIME => text.date_time(short(row)?, self.digits()),
            Wire::MYSQL_TYPE_TIMESTAMP => {
                text.date_time(short(row)?, self.digits())?;
                text.write_str("+00:00").ok()
            }
            Wire::MYSQL_TYPE_TIME => text.duration(short(row)?, self.digits()),
            Wire::MYSQL_TYPE_BIT => {
                let bits = row.checked_eat_lenenc_str()?;
                let number = bits.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
                write!(text, "{number}").ok()
            }
            Wire::MYSQL_TYPE_DECIMAL | Wire::MYSQL_TYPE_NEWDECIMAL => {
                text.0.extend_from_slice(row.checked_eat_lenenc_str()?);
                Some(())
            }
            _ if self.is_binary() => text.hexadecimal(row.checked_eat_lenenc_str()?),
            _ => {
                text.0.extend_from_slice(row.checked_eat_lenenc_str()?);
                Some(())
            }
        }
    }
}

/// How values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Whole {
        is_unsigned: bool,
    },
    /// With so many digits after the point.
    Decimal(u8),
    Real,
    Binary,
    /// A point in time, with so many digits of a second.
    Time(u8),
    Uuid,
    /// As texts, whatever they are.
    Text,
}

impl Kind {
    fn is_whole(type_name: &str) -> bool {
        type_name.trim_end_matches(" unsigned").ends_with("int")
    }

    pub(super) fn of(column: &Column) -> Self {
        let name = column.type_name.as_str();
        let digits = || name.bytes().rev().find(u8::is_ascii_digit).map_or(0, |digit| digit - b'0');
        match name {
            "boolean" => Self::Whole { is_unsigned: false },
            "year" | "bit" => Self::Whole { is_unsigned: true },
            "float" | "double" => Self::Real,
            "binary" => Self::Binary,
            "uuid" => Self::Uuid,
            _ if Self::is_whole(name) => Self::Whole { is_unsigned: name.ends_with("unsigned") },
            _ if name.starts_with("decimal") => {
                let scale = name.trim_start_matches("decimal(").trim_end_matches(')');
                Self::Decimal(scale.parse().unwrap_or_default())
            }
            _ if name.starts_with("timestamp") => Self::Time(digits()),
            _ => Self::Text,
        }
    }

    /// Whether a text is a value of this kind.
    pub(super) fn has(self, text: &str) -> bool {
        match self {
            Self::Whole { is_unsigned: false } => text.parse::<i64>().is_ok(),
            Self::Whole { is_unsigned: true } => text.parse::<u64>().is_ok(),
            Self::Decimal(_) => tidewaiter_connector::cells::is_decimal(text),
            Self::Real => text.parse::<f64>().is_ok(),
            Self::Binary => text.strip_prefix("\\x").is_some_and(|digits| {
                digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            }),
            Self::Time(_) => utc(text).is_some(),
            Self::Uuid => {
                let shape = text.bytes().map(|byte| if byte.is_ascii_hexdigit() { b'0' } else { byte });
                shape.eq(*b"00000000-0000-0000-0000-000000000000")
            }
            Self::Text => true,
        }
    }
}

/// A time in UTC, without its offset.
pub(super) fn utc(time: &str) -> Option<&str> {
    ["+00:00", "+00", "Z"].iter().find_map(|offset| time.strip_suffix(offset))
}

/// The members of a set, whose names hold no comma.
fn members(text: &str) -> Option<Vec<String>> {
    Some(text.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect())
}

fn bytes<const N: usize>(row: &mut ParseBuf<'_>) -> Option<[u8; N]> {
    row.checked_eat(N)?.try_into().ok()
}

/// What has its length before it, in one byte.
fn short<'a>(row: &mut ParseBuf<'a>) -> Option<&'a [u8]> {
    row.checked_eat_u8_str()
}

/// The texts of cells.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Text<'_> {
    /// A number that was taken for one with a sign.
    fn whole(&mut self, number: i64, is_signed: bool, bits: u32) -> Option<()> {
        if is_signed {
            return write!(self, "{number}").ok();
        }
        write!(self, "{}", number.cast_unsigned() & u64::MAX >> (64 - bits)).ok()
    }

    fn hexadecimal(&mut self, bytes: &[u8]) -> Option<()> {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        self.0.extend_from_slice(b"\\x");
        let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        self.0.extend(digits);
        Some(())
    }

    fn date(&mut self, value: &[u8]) -> Option<()> {
        let (year, month, day) = match *value {
            [] => (0, 0, 0),
            [y0, y1, month, day, ..] => (u16::from_le_bytes([y0, y1]), month, day),
            _ => return None,
        };
        write!(self, "{year:04}-{month:02}-{day:02}").ok()
    }

    fn date_time(&mut self, value: &[u8], digits: usize) -> Option<()> {
        self.date(value)?;
        let (hour, minute, second) = match *value {
            [_, _, _, _, hour, minute, second, ..] => (hour, minute, second),
            _ => (0, 0, 0),
        };
        write!(self, " {hour:02}:{minute:02}:{second:02}").ok()?;
        self.fraction(value.get(7..), digits)
    }

    fn duration(&mut self, value: &[u8], digits: usize) -> Option<()> {
        let (sign, hours, minute, second) = match *value {
            [] => ("", 0, 0, 0),
            [sign, d0, d1, d2, d3, hour, minute, second, ..] => {
                let hours = u64::from(u32::from_le_bytes([d0, d1, d2, d3])) * 24 + u64::from(hour);
                (if sign == 0 { "" } else { "-" }, hours, minute, second)
            }
            _ => return None,
        };
        write!(self, "{sign}{hours:02}:{minute:02}:{second:02}").ok()?;
        self.fraction(value.get(8..), digits)
    }

    /// Millionths of a second, in so many digits.
    fn fraction(&mut self, value: Option<&[u8]>, digits: usize) -> Option<()> {
        let millionths = match value {
            Some(&[m0, m1, m2, m3]) => u32::from_le_bytes([m0, m1, m2, m3]),
            _ => 0,
        };
        if digits == 0 {
            return Some(());
        }
        let text = format!(".{millionths:06}");
        self.write_str(text.get(..=digits)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_with_the_digits_that_their_columns_have() {
        let told = |tell: &dyn Fn(&mut Text<'_>) -> Option<()>| {
            let mut text = Vec::new();
            tell(&mut Text(&mut text)).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(told(&|text| text.date(&[0xea, 7, 3, 1])), "2026-03-01");
        assert_eq!(told(&|text| text.date(&[])), "0000-00-00");
        assert_eq!(told(&|text| text.date_time(&[0xea, 7, 3, 1], 0)), "2026-03-01 00:00:00");
        assert_eq!(
            told(&|text| text.date_time(&[0xea, 7, 3, 1, 8, 5, 9, 1, 0, 0, 0], 6)),
            "2026-03-01 08:05:09.000001"
        );
        assert_eq!(told(&|text| text.duration(&[1, 34, 0, 0, 0, 22, 59, 59], 3)), "-838:59:59.000");
        assert_eq!(told(&|text| text.duration(&[], 0)), "00:00:00");
        assert_eq!(told(&|text| text.whole(-1, false, 64)), "18446744073709551615");
        assert_eq!(told(&|text| text.whole(-1, false, 8)), "255");
        assert_eq!(told(&|text| text.hexadecimal(&[0, 255])), "\\x00ff");
    }

    #[test]
    fn what_is_no_value_is_known_before_a_server_makes_one_of_it() {
        let whole = Kind::Whole { is_unsigned: false };
        for (kind, good, bad) in [
            (whole, "-9223372036854775808", "9223372036854775808"),
            (whole, "7", "7 OR 1=1"),
            (Kind::Whole { is_unsigned: true }, "18446744073709551615", "-1"),
            (Kind::Decimal(2), "1.50", "1.5.0"),
            (Kind::Binary, "\\x00ff", "00ff"),
            (Kind::Binary, "\\x", "\\x0"),
            (Kind::Time(6), "2026-03-01 08:00:00+00:00", "2026-03-01 08:00:00+01:00"),
            (Kind::Uuid, "6f1c2e5e-0000-4000-8000-00000000000a", "6f1c2e5e"),
        ] {
            assert!(kind.has(good) && !kind.has(bad), "{kind:?}: {good} {bad}");
        }
    }
}
