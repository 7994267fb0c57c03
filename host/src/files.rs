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

/// The text of a regular file that is no longer than so many bytes.
pub(crate) fn text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let bytes = open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    match bytes as u64 > bytes_max {
        false => Ok(text),
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes"))),
    }
}

/// Puts a file in the place of whatever has its name, with the permissions of that, or else with these. Once it returns, the file is there whatever happens. Not for two at
/// a time.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // A process that ended in the middle left one; the next one takes it.
    let begun = folder.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&begun)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&begun, path)?;
    File::open(folder)?.sync_all()
}
