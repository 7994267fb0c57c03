//! Finds the servers that tests run against: those that this machine has, or else Debian's, unpacked into `target/tools/servers`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::debian;
use crate::shell::{exists, hold, say};

/// Libraries that are loaded for what no test does: compiling queries, and functions in Perl.
const NOT_NEEDED: [&str; 2] = ["libllvm", "libperl"];

/// Fetches what is missing.
pub(crate) fn find(root: &Path) -> Result<()> {
    let unpacked = root.join("target/tools/servers");
    if has_postgresql(Path::new("/")) {
        return Ok(());
    }
    let _held = hold(&unpacked)?;
    if has_postgresql(&unpacked) {
        return Ok(());
    }
    if !exists("apt-get") || !exists("dpkg-deb") {
        bail!("tests run against PostgreSQL: install it with /usr/lib/postgresql/VERSION/bin, as Debian does");
    }
    debian::unpack(root, &unpacked, "postgresql", &["postgresql-1", "postgresql-client-1"], &NOT_NEEDED)?;
    if !has_postgresql(&unpacked) {
        bail!("Debian's packages, unpacked in {}, hold no PostgreSQL", unpacked.display());
    }
    say("PostgreSQL is there");
    Ok(())
}

fn has_postgresql(root: &Path) -> bool {
    let Ok(versions) = std::fs::read_dir(root.join("usr/lib/postgresql")) else { return false };
    versions.flatten().any(|version| version.path().join("bin/initdb").is_file())
}
