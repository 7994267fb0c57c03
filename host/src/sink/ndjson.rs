//! The sink that appends entries to a file, one JSON object a line. The file itself says how far it got: after a crash a line
//! that was cut off is removed, and delivery goes on after the last whole one.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tidewaiter_core::journal::{Entry, EntryId};

use super::render;

/// An open file of entries.
#[derive(Debug)]
pub struct NdjsonSink {
    path: PathBuf,
    file: File,
}

impl NdjsonSink {
    /// Opens or makes the file, and says which entry is the last in it, if any.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open(path: &Path) -> io::Result<(Self, Option<EntryId>)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let mut options = OpenOptions::new();
        // Appending finds the end even if somebody empties the file meanwhile, as log rotation can.
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(path).map_err(named)?;
        let (end, last) = last_whole_line(&file).map_err(named)?;
        file.set_len(end).map_err(named)?;
        let id = last
            .and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok()?.get("id")?.as_str()?.parse().ok());
        Ok((Self { path: path.to_owned(), file }, id))
    }

    /// Appends entries and makes them durable. If the file was moved away, as by logrotate, a new one takes its place.
    ///
    /// # Errors
    /// The file system's. What was written may be cut off in the middle; opening the file again mends it.
    pub fn deliver(&mut self, entries: &[Entry]) -> io::Result<()> {
        if !self.is_in_place() {
            *self = Self::open(&self.path)?.0;
        }
        let mut bytes = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut bytes, &render::entry(entry))?;
            bytes.push(b'\n');
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_in_place(&self) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let there = std::fs::metadata(&self.path).map(identity).ok();
        there.is_some() && there == self.file.metadata().map(identity).ok()
    }
}

/// The end of the last line that ends, and that line.
fn last_whole_line(file: &File) -> io::Result<(u64, Option<String>)> {
    /// More than the longest line that is written: an object's limit, escaped.
    const TAIL: u64 = 8 * 1024 * 1024;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let begin = length.saturating_sub(TAIL);
    reader.seek(SeekFrom::Start(begin))?;
    let (mut end, mut last, mut line) = (begin, None, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok((end, last));
        }
        end += read as u64;
        last = Some(String::from_utf8_lossy(&line).into_owned());
    }
}
