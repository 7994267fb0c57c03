//! The files of connectors that connections run or may go back to, by their hash: the folder that operators put files into only has
//! the newest of each.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tidewaiter_core::text::hex;

use crate::files;
use crate::trust::{STATEMENT_BYTES_MAX, Signed};
use crate::wasm::COMPONENT_BYTES_MAX;

/// A connector's bytes, read once.
#[derive(Clone)]
pub(crate) struct Bytes {
    pub(crate) sha256: String,
    pub(crate) bytes: Vec<u8>,
    /// What lies beside it; none: there is nothing, or not both.
    pub(crate) signed: Option<Signed>,
}

/// A statement of the file, and its signature.
pub(crate) fn beside(path: &Path) -> [PathBuf; 2] {
    ["statement", "statement.minisig"].map(|extension| path.with_extension(extension))
}

impl Bytes {
    /// Reads a file; of one that is larger than any connector only so much that this is seen.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        files::open(path)?.take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let signed = match beside(path).map(|path| files::text(&path, STATEMENT_BYTES_MAX)) {
            [Ok(statement), Ok(signature)] => Some(Signed { statement, signature }),
            _ => None,
        };
        Ok(Self::of(bytes, signed))
    }

    /// Of what came some other way.
    pub(crate) fn of(bytes: Vec<u8>, signed: Option<Signed>) -> Self {
        Self { sha256: hex(&Sha256::digest(&bytes)), bytes, signed }
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
        match self.read(&bytes.sha256) {
            Ok(kept) if kept.signed == bytes.signed || bytes.signed.is_none() => return Ok(()),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        if let Some(Signed { statement, signature }) = &bytes.signed {
            let [beside, its_signature] = beside(&path);
            files::put(&beside, statement.as_bytes(), 0o600)?;
            files::put(&its_signature, signature.as_bytes(), 0o600)?;
        }
        files::put(&path, &bytes.bytes, 0o600)
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
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Also what was begun of one.
            let stem = name.trim_start_matches('.').split('.').next().unwrap_or_default();
            let is_ours = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_ours && !wanted.contains(stem) {
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
