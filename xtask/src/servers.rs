//! Finds the servers that tests run against: those that this machine has, or else Debian's, unpacked into `target/tools/servers`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::debian::{self, Wanted};
use crate::shell::{exists, hold, say};

/// A server.
struct Server {
    name: &'static str,
    /// What it needs to be found, for who has no Debian.
    place: &'static str,
    is_in: fn(&Path) -> bool,
    wanted: Wanted<'static>,
}

const SERVERS: [Server; 2] = [
    Server {
        name: "PostgreSQL",
        place: "/usr/lib/postgresql/VERSION/bin",
        is_in: has_postgresql,
        wanted: Wanted {
            packages: &["postgresql"],
            own: &["postgresql-1", "postgresql-client-1"],
            // Loaded for what no test does: compiling queries, and functions in Perl.
            but_for: &["libllvm", "libperl"],
            alone: &[],
        },
    },
    Server {
        name: "MariaDB",
        place: "/usr/sbin/mariadbd and /usr/bin/mariadb",
        is_in: has_mariadb,
        wanted: Wanted {
            packages: &["mariadb-server-core", "mariadb-client-core"],
            own: &["mariadb-server", "mariadb-client-core"],
            but_for: &[],
            // Logins by Ed25519 are in it.
            alone: &["mariadb-server"],
        },
    },
];

/// Fetches what is missing.
pub(crate) fn find(root: &Path) -> Result<()> {
    let unpacked = root.join("target/tools/servers");
    let is_missing = |server: &&Server| !(server.is_in)(Path::new("/")) && !(server.is_in)(&unpacked);
    if !SERVERS.iter().any(|server| is_missing(&server)) {
        return Ok(());
    }
    let _held = hold(&unpacked)?;
    for Server { name, place, is_in, wanted } in SERVERS.iter().filter(is_missing) {
        if !exists("apt-get") || !exists("dpkg-deb") {
            bail!("tests run against {name}: install it with {place}, as Debian does");
        }
        debian::unpack(root, &unpacked, name, wanted)?;
        if !is_in(&unpacked) {
            bail!("Debian's packages, unpacked in {}, hold no {name}", unpacked.display());
        }
        say(&format!("{name} is there"));
    }
    Ok(())
}

fn has_postgresql(root: &Path) -> bool {
    let Ok(versions) = std::fs::read_dir(root.join("usr/lib/postgresql")) else { return false };
    versions.flatten().any(|version| version.path().join("bin/initdb").is_file())
}

fn has_mariadb(root: &Path) -> bool {
    let files = ["usr/sbin/mariadbd", "usr/bin/mariadb", "usr/share/mysql/mysql_system_tables.sql"];
    files.iter().all(|file| root.join(file).is_file())
}
