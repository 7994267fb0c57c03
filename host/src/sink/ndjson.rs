//! The sink that appends entries to a file, one JSON object a line. The file itself says how far it got: after a crash a line
//! that was cut off is removed, and delivery goes on after the last whole one.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tidewaiter_core::journal::{Entry, EntryId};
use tokio::task::spawn_blocking;

use super::{Delivering, Journal, Sink, Undelivered, render};

/// Entries written at a time; fewer where they are large.
const ENTRIES_MAX: usize = 4096;

/// Appends to a file.
#[derive(Debug)]
pub struct NdjsonSink {
    name: String,
    path: PathBuf,
    /// None: to be opened again.
    lines: Option<Lines>,
}

impl NdjsonSink {
    /// The sink of this name, which writes to this file.
    pub fn new(name: String, path: PathBuf) -> Self {
        Self { name, path, lines: None }
    }
}

impl Sink for NdjsonSink {
    fn entries_max(&self) -> usize {
        ENTRIES_MAX
    }

    fn resume(&mut self, journal: Journal, after: u64) -> io::Result<u64> {
        let (lines, written) = Lines::open(&self.path)?;
        self.lines = Some(lines);
        let resumed = resumed(after, written, journal);
        if let Err(written) = resumed {
            tracing::error!(
                target: "tidewaiter::sink", sink = self.name, path = %self.path.display(), position = after,
                "the file's last entry {written} is not in this journal: entries after the stored position follow it"
            );
        }
        Ok(resumed.unwrap_or(after))
    }

    fn deliver(&mut self, entries: Vec<Entry>) -> Delivering<'_> {
        Box::pin(async move {
            let lines = self.lines.take();
            let last = entries.last().map_or(0, |entry| entry.id.sequence);
            let path = self.path.clone();
            let append = spawn_blocking(move || {
                let mut lines = lines.map_or_else(|| Lines::open(&path).map(|(lines, _)| lines), Ok)?;
                lines.append(&entries).map(|()| lines)
            });
            let appended = append.await.map_err(Undelivered::because)?;
            self.lines = Some(appended.map_err(Undelivered::because)?);
            Ok(last)
        })
    }
}

/// Where to go on: what is in the file counts, as long as it comes from this journal. It may be ahead of the stored position
/// (a crash came in between), never behind it unless it was taken away.
fn resumed(position: u64, written: Option<EntryId>, journal: Journal) -> Result<u64, EntryId> {
    match written {
        None => Ok(position),
        Some(id) if id.incarnation == journal.incarnation && id.sequence <= journal.last => {
            Ok(position.max(id.sequence))
        }
        Some(id) => Err(id),
    }
}

/// An open file of entries.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
}

impl Lines {
    /// Opens or makes the file, and says which entry is the last in it, if any. Errors are the file system's, with the path.
    fn open(path: &Path) -> io::Result<(Self, Option<EntryId>)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let mut options = OpenOptions::new();
        // Appending finds the end even if somebody empties the file meanwhile, as log rotation can.
        options.read(true).append(true).create(true).mode(0o600);
        // A device has no last line, and may have no end.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(named(io::Error::other("it is no regular file")));
        }
        let file = options.open(path).map_err(named)?;
        let (end, last) = last_whole_line(&file).map_err(named)?;
        file.set_len(end).map_err(named)?;
        let id = last
            .and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok()?.get("id")?.as_str()?.parse().ok());
        Ok((Self { path: path.to_owned(), file }, id))
    }

    /// Appends entries and makes them durable. If the file was moved away, as by logrotate, a new one takes its place. After an error
    /// the last line may be cut off in the middle; opening the file again mends it.
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tidewaiter_core::journal::Incarnation;

    #[test]
    fn goes_on_after_what_is_in_the_file_if_it_is_this_journals() {
        let ours = Journal { incarnation: Incarnation(1), last: 10 };
        let id = |incarnation, sequence| Some(EntryId { incarnation: Incarnation(incarnation), sequence });
        assert_eq!(resumed(3, None, ours), Ok(3), "a rotated file");
        assert_eq!(resumed(3, id(1, 7), ours), Ok(7), "a crash before the position was stored");
        assert_eq!(resumed(7, id(1, 3), ours), Ok(7), "a file put in the place of a rotated one");
        assert!(resumed(3, id(1, 11), ours).is_err(), "a journal that lost entries");
        assert!(resumed(0, id(2, 5), ours).is_err(), "a new db");
    }
}
