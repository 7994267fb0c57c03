//! From bytes to rows, by RFC 4180. Owns the parser and the place of a row in its file; it knows nothing of columns.

use std::fs::File;
use std::io::{self, Read};

use csv_core::ReadRecordResult;

/// What a read asks for. Large, because a read out of the sandbox costs more than the copy.
const BUFFER_BYTES: usize = 1 << 20;
/// The longest row. More than that is a quote that was not closed.
const ROW_BYTES_MAX: u64 = 8 << 20;

/// The cells of one row.
#[derive(Debug, Default)]
pub(crate) struct Row {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    bytes_len: usize,
    cells: usize,
}

impl Row {
    pub(crate) fn len(&self) -> usize {
        self.cells
    }

    /// The text of a cell. None: it is not UTF-8.
    pub(crate) fn text(&self, cell: usize) -> Option<&str> {
        let start = if cell == 0 { 0 } else { self.ends[cell - 1] };
        str::from_utf8(&self.bytes[start..self.ends[cell]]).ok()
    }

    /// The first 8 bytes, little endian, of the BLAKE3 hash of all cells and then their ends (4 bytes each, little endian). It is
    /// kept in sync tokens: another way to compute it is another token format.
    pub(crate) fn digest(&self, scratch: &mut Vec<u8>) -> u64 {
        scratch.clear();
        scratch.extend_from_slice(&self.bytes[..self.bytes_len]);
        for end in &self.ends[..self.cells] {
            scratch.extend_from_slice(&u32::try_from(*end).unwrap_or(u32::MAX).to_le_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(scratch).as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

/// What became of the bytes that the parser was fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// All taken, and the row goes on.
    More,
    /// The row is complete.
    Row,
}

/// Parses one row at a time.
pub(crate) struct Parser {
    core: csv_core::Reader,
    row: Row,
}

impl Parser {
    pub(crate) fn new(delimiter: u8) -> Self {
        let row = Row { bytes: vec![0; 4096], ends: vec![0; 64], ..Row::default() };
        Self { core: csv_core::ReaderBuilder::new().delimiter(delimiter).build(), row }
    }

    /// The row that was completed last.
    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    /// Parses the bytes of exactly one row, which begin with a line end. False: they are not one row.
    pub(crate) fn parse_one(&mut self, bytes: &[u8]) -> bool {
        self.core.reset();
        self.begin();
        match self.feed(bytes) {
            (Fed::Row, used) => used == bytes.len(),
            (Fed::More, _) => self.feed(b"\n").0 == Fed::Row,
        }
    }

    fn begin(&mut self) {
        (self.row.bytes_len, self.row.cells) = (0, 0);
    }

    /// Answers how many bytes were taken.
    fn feed(&mut self, bytes: &[u8]) -> (Fed, usize) {
        let row = &mut self.row;
        let mut used = 0;
        loop {
            let (result, read, written, ended) =
                self.core.read_record(&bytes[used..], &mut row.bytes[row.bytes_len..], &mut row.ends[row.cells..]);
            used += read;
            row.bytes_len += written;
            row.cells += ended;
            match result {
                ReadRecordResult::OutputFull => row.bytes.resize(row.bytes.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => row.ends.resize(row.ends.len() * 2, 0),
                ReadRecordResult::Record => return (Fed::Row, used),
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return (Fed::More, used),
            }
        }
    }
}

/// Where a row is in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// Its first line, from 1.
    pub(crate) line: u64,
    pub(crate) end: RowEnd,
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowEnd {
    /// With a line end.
    Line,
    /// With the file.
    File,
    /// With the file, inside a quoted cell.
    Quote,
}

/// Streams over the rows of a file, from its beginning.
pub(crate) struct Reader<'a> {
    file: &'a File,
    parser: Parser,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of `buffer[start]` in the file.
    offset: u64,
    line: u64,
}

impl<'a> Reader<'a> {
    /// The file must be at its beginning. A byte order mark is left out.
    pub(crate) fn new(file: &'a File, delimiter: u8) -> io::Result<Self> {
        let mut reader = Self {
            file,
            parser: Parser::new(delimiter),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            offset: 0,
            line: 1,
        };
        while reader.end < 3 && reader.fill()? {}
        if reader.buffer[..reader.end].starts_with(b"\xef\xbb\xbf") {
            reader.take(3);
        }
        Ok(reader)
    }

    /// The next row, and where it is. Empty lines are left out.
    pub(crate) fn next(&mut self) -> io::Result<Option<(&Row, Place)>> {
        if !self.skip_line_ends()? {
            return Ok(None);
        }
        let (offset, line) = (self.offset, self.line);
        self.parser.begin();
        let end = loop {
            let (fed, used) = self.parser.feed(&self.buffer[self.start..self.end]);
            self.take(used);
            if fed == Fed::Row {
                break RowEnd::Line;
            }
            if self.offset - offset > ROW_BYTES_MAX {
                let message = format!("line {line}: a row of more than {ROW_BYTES_MAX} bytes; is a quote not closed?");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if !self.fill()? {
                break self.end_of_file();
            }
        };
        let place = Place { offset, length: u32::try_from(self.offset - offset).unwrap_or(u32::MAX), line, end };
        Ok(Some((self.parser.row(), place)))
    }

    fn skip_line_ends(&mut self) -> io::Result<bool> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            match bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                Some(count) => {
                    self.take(count);
                    return Ok(true);
                }
                None => self.take(bytes.len()),
            }
            if !self.fill()? {
                return Ok(false);
            }
        }
    }

    /// A line end completes the row, unless it stands in quotes.
    fn end_of_file(&mut self) -> RowEnd {
        match self.parser.feed(b"\n") {
            (Fed::Row, _) => RowEnd::File,
            (Fed::More, _) => RowEnd::Quote,
        }
    }

    fn take(&mut self, count: usize) {
        let taken = &self.buffer[self.start..self.start + count];
        self.line += taken.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads more, behind what was not taken yet. False: the file has no more.
    fn fill(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let read = self.file.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }
}
