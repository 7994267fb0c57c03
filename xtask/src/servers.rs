//! Finds the servers that tests run against, and other people's tools: those that this machine has, or else Debian's, unpacked into `target/tools/servers`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::debian::{self, Packages};
use crate::scripts;
use crate::shell::{exists, hold, say};

/// Libraries that are loaded for what no test does: compiling queries, functions in Perl and Python, setting packages up, pages that nobody looks at.
const NOT_NEEDED: [&str; 10] = [
    "libllvm",
    "libperl",
    "libpython",
    "libdebian-installer",
    "libnewt",
    "libtextwrap",
    "libgc1",
    "libelogind",
    "libpci",
    "libjs-",
];

/// A server or a tool, as Debian has it.
struct Server {
    name: &'static str,
    /// What has to be there.
    files: &'static [&'static str],
    packages: Packages,
}

const SERVERS: [Server; 9] = [
    Server {
        name: "PostgreSQL",
        files: &["usr/lib/postgresql/VERSION/bin/initdb"],
        packages: Packages { names: &["postgresql"], own: &["postgresql-1", "postgresql-client-1"], alone: &[] },
    },
    Server {
        name: "MariaDB",
        files: &["usr/sbin/mariadbd", "usr/bin/mariadb", "usr/share/mysql/mysql_system_tables.sql"],
        packages: Packages {
            names: &["mariadb-server-core", "mariadb-client-core"],
            own: &["mariadb-server", "mariadb-client-core"],
            // Logins by Ed25519 are in it.
            alone: &["mariadb-server"],
        },
    },
    Server {
        name: "OpenLDAP",
        files: &["usr/sbin/slapd", "usr/bin/ldapmodify"],
        packages: Packages { names: &["slapd", "ldap-utils"], own: &["slapd", "ldap-utils"], alone: &[] },
    },
    Server {
        name: "389 Directory Server",
        files: &["usr/sbin/ns-slapd"],
        packages: Packages { names: &["389-ds-base"], own: &["389-ds-base"], alone: &[] },
    },
    Server {
        name: "docker-registry",
        files: &["usr/bin/docker-registry"],
        packages: Packages { names: &["docker-registry"], own: &["docker-registry"], alone: &[] },
    },
    Server {
        name: "minisign",
        files: &["usr/bin/minisign"],
        packages: Packages { names: &["minisign"], own: &["minisign"], alone: &[] },
    },
    Server {
        name: "Prometheus",
        files: &["usr/bin/prometheus", "usr/bin/promtool"],
        packages: Packages { names: &["prometheus"], own: &["prometheus"], alone: &[] },
    },
    Server {
        name: "systemd-analyze",
        files: &["usr/bin/systemd-analyze"],
        // It needs its library, and nothing of what the rest of the package needs.
        packages: Packages { names: &["libsystemd-shared"], own: &[], alone: &["systemd"] },
    },
    Server {
        name: "Chromium",
        files: &["usr/lib/chromium/chromium"],
        packages: Packages { names: &["chromium"], own: &["chromium"], alone: &["fonts-dejavu-core"] },
    },
];

/// Fetches what is missing.
pub(crate) fn find(root: &Path) -> Result<()> {
    let unpacked = root.join("target/tools/servers");
    SERVERS.iter().try_for_each(|server| find_one(root, &unpacked, server))?;
    scripts::oras(root)?;
    scripts::schemathesis(root)?;
    scripts::browser(root)
}

fn find_one(root: &Path, unpacked: &Path, server: &Server) -> Result<()> {
    let Server { name, files, packages } = server;
    let is_there = |root: &Path| files.iter().all(|file| is_in(root, file));
    if is_there(Path::new("/")) {
        return Ok(());
    }
    let _held = hold(unpacked)?;
    if is_there(unpacked) {
        return Ok(());
    }
    if !exists("apt-get") || !exists("dpkg-deb") {
        bail!("tests run against {name}: install it, with /{}, as Debian does", files.join(" and /"));
    }
    debian::unpack(root, unpacked, name, *packages, &NOT_NEEDED)?;
    if !is_there(unpacked) {
        bail!("Debian's packages, unpacked in {}, hold no {name}", unpacked.display());
    }
    say(&format!("{name} is there"));
    Ok(())
}

/// Whether a file is below a folder, whatever version there is.
fn is_in(root: &Path, file: &str) -> bool {
    let Some((folder, rest)) = file.split_once("/VERSION/") else { return root.join(file).is_file() };
    let Ok(versions) = std::fs::read_dir(root.join(folder)) else { return false };
    versions.flatten().any(|version| version.path().join(rest).is_file())
}
