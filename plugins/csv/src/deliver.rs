//! The second pass: the changed rows in the order of their positions, as deltas. Owns the blocks in which they are read again.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use tidewaiter_connector::{Attribute, Change, Changes, Context, Deleted, Delta, Error, Object, SyncToken, ValueMode};

use crate::cells::read_all;
use crate::files::CsvFile;
use crate::progress::{Entry, Progress};
use crate::rows::{Parser, Row};
use crate::scan::{Bad, text};
use crate::settings::Config;
use crate::time;
use crate::token::Token;

/// So many bytes of rows are in memory at a time.
const BLOCK_BYTES: usize = 16 << 20;
/// The most that is read at once.
const READ_BYTES: u64 = 1 << 20;
/// Bytes between two rows that are cheaper to read than to seek over.
const GAP_BYTES: u64 = 64 << 10;

/// Hands the rows over, and answers the token after the last one. None: there was no row.
pub(crate) fn deliver(
    files: &[CsvFile],
    entries: &[Entry],
    mut progress: Progress,
    config: &Config,
    changes: &mut Changes,
) -> Result<Option<Token>, Error> {
    let mut parser = Parser::new(config.delimiter);
    let mut scratch = Vec::new();
    let mut block = Block::default();
    let mut start = 0;
    while start < entries.len() {
        let rows = start..block_end(entries, start);
        start = rows.end;
        block.load(files, &entries[rows.clone()])?;
        for (index, raw) in rows.zip(&block.spots) {
            let entry = &entries[index];
            let file = &files[entry.file as usize];
            let complete = parser.parse_one(&block.bytes[raw.clone()]);
            if !complete || parser.row().digest(&mut scratch) != entry.digest {
                return Err(changed(file));
            }
            match delta(parser.row(), file, config) {
                Ok(delta) => changes.push(delta)?,
                Err(bad) => bad.handle(file, line_of(file, entry.offset)?, config)?,
            }
            progress.advance(entry);
            let last_of_its_time = entries.get(index + 1).is_none_or(|next| next.at != entry.at);
            changes.checkpoint_when_due(|| progress.token(last_of_its_time).map(|token| SyncToken::from(&token)))?;
        }
    }
    Ok(if entries.is_empty() { None } else { progress.token(true) })
}

fn changed(file: &CsvFile) -> Error {
    Error::retryable(format!("{} changed while it was being read", file.name))
}

fn block_end(entries: &[Entry], start: usize) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.length as usize + 1;
        bytes <= BLOCK_BYTES
    };
    start + entries[start..].iter().take_while(fits).count().max(1)
}

/// Raw rows, each behind a line end.
#[derive(Debug, Default)]
struct Block {
    bytes: Vec<u8>,
    /// For each entry: where its row is in `bytes`.
    spots: Vec<Range<usize>>,
    order: Vec<usize>,
    chunk: Vec<u8>,
}

impl Block {
    /// Reads the rows in the order of the files, with as few and as large reads as that takes.
    fn load(&mut self, files: &[CsvFile], entries: &[Entry]) -> Result<(), Error> {
        self.bytes.clear();
        self.spots.clear();
        self.spots.resize(entries.len(), 0..0);
        self.order.clear();
        self.order.extend(0..entries.len());
        self.order.sort_unstable_by_key(|index| (entries[*index].file, entries[*index].offset));
        let mut next = 0;
        while next < self.order.len() {
            let rows = next..self.read_end(entries, next);
            next = rows.end;
            let (first, last) = (&entries[self.order[rows.start]], &entries[self.order[rows.end - 1]]);
            let file = &files[first.file as usize];
            self.read(file, first.offset, last.offset + u64::from(last.length))?;
            for index in &self.order[rows] {
                let entry = &entries[*index];
                let from = usize::try_from(entry.offset - first.offset).unwrap_or(usize::MAX);
                let spot = self.bytes.len();
                self.bytes.push(b'\n');
                self.bytes.extend_from_slice(&self.chunk[from..from + entry.length as usize]);
                self.spots[*index] = spot..self.bytes.len();
            }
        }
        Ok(())
    }

    /// Up to where rows are read at once.
    fn read_end(&self, entries: &[Entry], start: usize) -> usize {
        let first = &entries[self.order[start]];
        let mut end = first.offset + u64::from(first.length);
        let near = |index: &&usize| {
            let entry = &entries[**index];
            let row_end = entry.offset + u64::from(entry.length);
            let near =
                entry.file == first.file && entry.offset <= end + GAP_BYTES && row_end - first.offset <= READ_BYTES;
            end = row_end;
            near
        };
        start + 1 + self.order[start + 1..].iter().take_while(near).count()
    }

    fn read(&mut self, file: &CsvFile, from: u64, to: u64) -> Result<(), Error> {
        self.chunk.resize(usize::try_from(to - from).unwrap_or(usize::MAX), 0);
        let mut handle = &file.file;
        handle.seek(SeekFrom::Start(from)).with_context(|| file.name.clone())?;
        match handle.read_exact(&mut self.chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed(file)),
            read => read.with_context(|| file.name.clone()),
        }
    }
}

/// Counted only when it is needed, for a message.
fn line_of(file: &CsvFile, offset: u64) -> Result<u64, Error> {
    file.rewind()?;
    let mut before = (&file.file).take(offset);
    let mut chunk = vec![0; 64 << 10];
    let mut line = 1;
    loop {
        match before.read(&mut chunk).with_context(|| file.name.clone())? {
            0 => return Ok(line),
            read => line += chunk[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

pub(crate) fn delta(row: &Row, file: &CsvFile, config: &Config) -> Result<Delta, Bad> {
    let columns = &file.columns;
    let class = config.settings.class.as_str();
    let deleted_at = match columns.deleted_at {
        Some(column) => Some(text(row, column)?).filter(|cell| !cell.is_empty()),
        None => None,
    };
    let updated_at = columns.updated_at.map(|column| text(row, column)).transpose()?;
    let instant = |cell| time::parse(cell, config.zone).map(|parsed| (parsed, cell));
    let at = updated_at.and_then(instant).max(deleted_at.and_then(instant));
    let delta = if deleted_at.is_some() {
        // What is left of a deleted row may be anything; that must not hold the deletion up.
        Change::Delete(Deleted {
            uid: text(row, columns.uid)?.to_owned(),
            name: row.text(columns.name).map(str::to_owned),
            last_known: object(row, file, config).ok(),
        })
        .of(class)
    } else {
        Delta::upsert(class, object(row, file, config)?)
    };
    Ok(match at {
        Some((parsed, cell)) => delta.at(time::rfc3339(cell.trim(), parsed)),
        None => delta,
    })
}

pub(crate) fn object(row: &Row, file: &CsvFile, config: &Config) -> Result<Object, Bad> {
    let columns = &file.columns;
    let mut object = Object::new(text(row, columns.uid)?, text(row, columns.name)?);
    object.attributes.reserve_exact(columns.names.len());
    for (index, (name, column)) in columns.names.iter().zip(&columns.attributes).enumerate() {
        let Some(column) = column else { continue };
        let cell = text(row, index)?;
        let values = read_all(column.cell_type, cell, column.separator.as_deref(), config.zone)
            .map_err(|reason| Bad::new(Some(index), format!("{cell:?} is {reason}")))?;
        object.attributes.push(Attribute { name: name.clone(), values, mode: ValueMode::Whole });
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tidewaiter_connector::testing::Connection;
    use tidewaiter_connector::{Connector, ErrorKind, Info, ObjectClass, SyncOptions};

    use super::*;
    use crate::{Settings, files, progress, scan};

    /// The connector, but somebody writes into its file between the passes.
    struct Meddled(Config);

    impl Connector for Meddled {
        type Settings = Settings;

        fn describe() -> Info {
            Info::new("meddled", "1.0.0")
        }

        fn new(settings: Settings) -> Result<Self, Error> {
            Ok(Self(settings.check()?))
        }

        fn object_classes(&self) -> Result<Vec<ObjectClass>, Error> {
            Ok(Vec::new())
        }

        fn sync(
            &self,
            meddling: &str,
            _token: Option<SyncToken>,
            _options: &SyncOptions,
            changes: &mut Changes,
        ) -> Result<Option<SyncToken>, Error> {
            let files = files::open(&self.0, None)?;
            let mut entries = Vec::new();
            scan::scan(&files, &self.0, i64::MIN, |entry| entries.push(entry))?;
            progress::order(&mut entries);
            let folder = std::path::Path::new(&self.0.settings.folder);
            let now = "id,at\na,2026-03-01\nx,2026-03-02\n";
            match meddling {
                "overwrite" => fs::write(folder.join("people.csv"), now)?,
                "truncate" => fs::write(folder.join("people.csv"), "id,at\n")?,
                _ => {
                    fs::write(folder.join("part"), now)?;
                    fs::rename(folder.join("part"), folder.join("people.csv"))?;
                }
            }
            let token = deliver(&files, &entries, Progress::default(), &self.0, changes)?;
            Ok(token.as_ref().map(Into::into))
        }
    }

    #[test]
    fn a_file_that_changes_between_the_passes_is_an_error_but_a_replaced_one_is_not() {
        for (meddling, delivered) in [("overwrite", Some(1)), ("truncate", Some(0)), ("replace", None)] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("people.csv"), "id,at\na,2026-03-01\nb,2026-03-02\n").unwrap();
            let settings =
                json!({ "folder": folder.path(), "uid": "id", "updated_at": "at", "settle_ms": 0, "class": "a" });
            let run = Connection::<Meddled>::new(settings).batches_of(1).sync(meddling, None);
            match delivered {
                Some(count) => {
                    assert_eq!(run.journaled().len(), count, "{meddling}");
                    let error = run.outcome.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Retryable);
                    assert_eq!(error.message(), "people.csv changed while it was being read");
                }
                None => assert_eq!((run.deltas().len(), run.outcome.is_ok()), (2, true)),
            }
        }
    }
}
