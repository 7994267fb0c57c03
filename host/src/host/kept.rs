//! The files of connectors that connections run or may go back to, by their hash: the folder that operators put files into only has
//! the newest of each.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tidewaiter_core::text::hex;

use crate::wasm::COMPONENT_BYTES_MAX;

/// A connector's bytes, read once.
#[derive(Clone)]
pub(crate) struct Bytes {
    pub(crate) sha256: String,
    pub(crate) bytes: Vec<u8>,
}

impl Bytes {
    /// Reads a file; of one that is larger than any connector only so much that this is seen.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        // A pipe would be waited for.
        let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        file.take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(Self { sha256: hex(&Sha256::digest(&bytes)), bytes })
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Kept(PathBuf);

impl Kept {
    pub(super) fn new(data: &Path) -> Self {
        Self(data.join("revisions"))
    }

    fn file(&self, sha256: &str) -> PathBuf {
        self.0.join(format!("{sha256}.wasm"))
    }

    /// Keeps a file; returns once it is there whatever happens.
    pub(super) fn keep(&self, bytes: &Bytes) -> io::Result<()> {
        let path = self.file(&bytes.sha256);
        if self.read(&bytes.sha256).is_ok() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        // A process that ended in the middle left one.
        let begun = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        file.write_all(&bytes.bytes)?;
        file.sync_all()?;
        std::fs::rename(&begun, &path)?;
        File::open(&self.0)?.sync_all()
    }

    /// A file that was kept, if it is what it was.
    pub(super) fn read(&self, sha256: &str) -> io::Result<Bytes> {
        let path = self.file(sha256);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let bytes = Bytes::read(&path).map_err(named)?;
        match bytes.sha256 == sha256 {
            true => Ok(bytes),
            false => Err(named(io::Error::new(io::ErrorKind::InvalidData, "it was changed by somebody else"))),
        }
    }

    /// Drops all files of ours but these.
    pub(super) fn sweep(&self, wanted: &BTreeSet<String>) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let is_ours = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_ours && !wanted.contains(stem.as_ref()) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_it_was_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, source) = (Kept::new(dir.path()), dir.path().join("a.wasm"));
        std::fs::write(&source, b"one").unwrap();
        let one = Bytes::read(&source).unwrap();
        kept.keep(&one).unwrap();
        kept.keep(&one).unwrap();
        assert_eq!(kept.read(&one.sha256).unwrap().bytes, b"one");
        std::fs::write(kept.file(&one.sha256), b"two").unwrap();
        let changed = kept.read(&one.sha256).err().unwrap().to_string();
        assert!(changed.contains("changed by somebody else") && changed.contains(&one.sha256), "{changed}");
        kept.keep(&one).unwrap();
        assert_eq!(kept.read(&one.sha256).unwrap().bytes, b"one", "and mended where the file comes again");
        kept.sweep(&BTreeSet::from([one.sha256.clone()])).unwrap();
        kept.read(&one.sha256).unwrap();
        std::fs::write(dir.path().join("revisions/mine.wasm"), b"one").unwrap();
        kept.sweep(&BTreeSet::new()).unwrap();
        assert!(dir.path().join("revisions/mine.wasm").exists(), "somebody else's");
        let gone = kept.read(&one.sha256).err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
