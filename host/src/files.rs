//! Files: written so that they are there as a whole or not at all, and read so that what lies in their place does no harm.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file. A pipe would be waited for.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// What is in a regular file that is no longer than so many bytes.
pub(crate) fn bytes(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        false => Ok(bytes),
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes"))),
    }
}

/// As `bytes`, of a text.
pub(crate) fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let bytes = bytes(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Puts a file in the place of whatever has its name, with the permissions of that, or else with these. Once it returns, the file is there whatever happens. Not for two at
/// a time.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let begun = folder.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    // A process that ended in the middle left one, or somebody else put a link there, who may write here and not where it leads.
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write(&begun, path, bytes, mode).and_then(|()| fs::rename(&begun, path));
    if written.is_err() {
        drop(fs::remove_file(&begun));
    }
    written?;
    File::open(folder)?.sync_all()
}

/// Makes a file where none is.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        drop(fs::remove_file(path));
    }
    written
}

/// Writes a new file, with the permissions of another one if there is that.
fn write(begun: &Path, like: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(begun)?;
    if let Ok(old) = fs::metadata(like) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_somebody_put_in_the_way_is_neither_written_to_nor_left() {
        let folder = tempfile::tempdir().unwrap();
        let [path, begun, victim] = ["a", ".a.new", "victim"].map(|name| folder.path().join(name));
        fs::write(&victim, "theirs").unwrap();
        symlink(&victim, &begun).unwrap();
        put(&path, b"ours", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&victim).unwrap()), (b"ours".to_vec(), b"theirs".to_vec()));
        // A folder can't be replaced, and nothing of the attempt is left.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(put(&path, b"ours", 0o600).is_err());
        assert!(fs::symlink_metadata(&begun).is_err());
    }
}
