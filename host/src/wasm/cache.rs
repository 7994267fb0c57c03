//! Compiled connectors on disk. Machine code runs with all our rights, so this is the one place with `unsafe`: what is loaded is
//! what our own compiler made, in this process or in an earlier one whose seal it carries.
//!
//! One file per connector and engine, readable by us alone: a seal of 32 bytes (HMAC-SHA-256 with a key that only this cache
//! has, over the file's name and the code), then the code.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use tidewaiter_core::text::hex;
use wasmtime::component::Component;

use super::engine::Engine;

/// All compiled connectors together; the ones not used for the longest time go.
const CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
const KEY_FILE: &str = "key";
const SEAL_BYTES: usize = 32;

/// Machine code that our compiler made.
pub(super) struct Artifact {
    code: Vec<u8>,
}

impl Artifact {
    /// Whoever calls this says that it is so.
    pub(super) fn of_our_compiler(code: Vec<u8>) -> Self {
        Self { code }
    }

    /// The component of this code.
    #[expect(unsafe_code, reason = "loading compiled code is the one thing that can't be checked; see the comment")]
    pub(super) fn load(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` asks for bytes that `Engine::precompile_component` made and that nobody changed. An `Artifact` comes
        // from two places only: the pipe of the compiler that we started, and a file whose seal says that we wrote exactly
        // these bytes under exactly this name. The seal was checked on this very copy in memory, so that a file changed in
        // between makes no difference. Another version or other settings are refused by wasmtime itself, by the header.
        unsafe { Component::deserialize(engine, &self.code) }
    }
}

/// The folder and its key.
pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; SEAL_BYTES],
    /// What compiled code depends on beside the connector: wasmtime's version and the engine's settings.
    engine: String,
}

impl Cache {
    /// Opens a cache, and makes it if need be.
    pub(super) fn open(dir: &Path, engine: &wasmtime::Engine) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(named)?;
        let key = key(&dir.join(KEY_FILE)).map_err(named)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), key, engine: format!("{:016x}", hasher.finish()) })
    }

    /// What was compiled of these bytes; none: it must be compiled.
    pub(super) fn component(&self, engine: &Engine, bytes: &[u8]) -> Option<Component> {
        let name = self.name(bytes);
        let path = self.dir.join(&name);
        let artifact = match read_private(&path).and_then(|file| self.unsealed(&name, file)) {
            Ok(artifact) => artifact,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), "a compiled connector is not used, and compiled again: {error}");
                return None;
            }
        };
        match artifact.load(engine.inner()) {
            Ok(component) => {
                // For the order in which they go.
                let _ = File::open(&path).and_then(|file| file.set_modified(now()));
                Some(component)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), "a compiled connector can't be loaded: {error:#}");
                None
            }
        }
    }

    /// Keeps what was compiled of these bytes.
    pub(super) fn put(&self, bytes: &[u8], artifact: &Artifact) -> io::Result<()> {
        let name = self.name(bytes);
        let begun = self.dir.join(format!("{name}.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        let seal = self.mac(&name, &artifact.code).finalize().into_bytes();
        let written = file.write_all(&seal).and_then(|()| file.write_all(&artifact.code));
        let written = written.and_then(|()| std::fs::rename(&begun, self.dir.join(&name)));
        if written.is_err() {
            let _ = std::fs::remove_file(&begun);
        }
        written?;
        self.shrink()
    }

    fn name(&self, bytes: &[u8]) -> String {
        format!("{}-{}", hex(&Sha256::digest(bytes)), self.engine)
    }

    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        mac.chain_update(name.as_bytes()).chain_update(code)
    }

    fn unsealed(&self, name: &str, mut file: Vec<u8>) -> io::Result<Artifact> {
        let bad = || io::Error::other("it is not what this host wrote");
        let code = file.split_off(file.len().min(SEAL_BYTES));
        self.mac(name, &code).verify_slice(&file).map_err(|_| bad())?;
        Ok(Artifact::of_our_compiler(code))
    }

    /// Lets the ones go that were not used for the longest time.
    fn shrink(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if entry.file_name() != KEY_FILE && meta.is_file() {
                files.push((meta.modified()?, meta.len(), entry.path()));
            }
        }
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.0));
        let mut kept = 0;
        for (_, bytes, path) in files {
            kept += bytes;
            if kept > CACHE_BYTES_MAX {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of a file of the cache, and nothing else")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn key(path: &Path) -> io::Result<[u8; SEAL_BYTES]> {
    match read_private(path).map(<[u8; SEAL_BYTES]>::try_from) {
        Ok(Ok(key)) => Ok(key),
        // Cut off: nothing that it sealed is used any more, and connectors are compiled anew.
        Ok(Err(_)) => new_key(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_key(path),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, whenever the process ends.
fn new_key(path: &Path) -> io::Result<[u8; SEAL_BYTES]> {
    let mut key = [0; SEAL_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(key)
}

/// A file that only we can have written.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a small flag");
    let mut file = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
    let meta = file.metadata()?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{}: others can write or read it", path.display())));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
