//! What is taken from Debian's own packages, unpacked and not installed: a private compiler for connectors (a newer rustc than the
//! project's, its standard library's source, LLVM, and wasi-libc from the release after), and servers for tests. Nothing outside
//! the given folder is written but cargo's download cache.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{exists, output, run_logged, say};
use crate::toolchain::TARGET;

/// Counts up when a folder made by an older version of this file is of no use any more.
const RECIPE: &str = "1";
/// The Debian release whose wasi-libc is used.
const LIBC_RELEASE: &str = "trixie";
/// What the machine has already, whatever the packages say.
const OF_THE_MACHINE: [&str; 5] = ["libc6", "libgcc-s1", "libstdc++6", "libcrypt1", "gcc-"];

/// Whether a folder holds a whole compiler of this recipe.
pub(crate) fn is_ready(folder: &Path) -> bool {
    fs::read_to_string(folder.join("recipe")).is_ok_and(|made| made == RECIPE)
}

/// Makes the compiler. About 140 MB are fetched, and two minutes taken.
pub(crate) fn install(root: &Path, folder: &Path) -> Result<()> {
    for (program, package) in [("cc", "gcc"), ("tar", "tar"), ("apt-cache", "apt")] {
        if !exists(program) {
            bail!("{program} is missing: apt-get install {package}");
        }
    }
    for old in ["usr", "bin", "std", "apt", "recipe"] {
        let path = folder.join(old);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.or_else(|error| if path.exists() { Err(error) } else { Ok(()) })?;
    }
    let linkers = linkers()?;
    let apt = Apt::prepare(root, folder, Some(LIBC_RELEASE))?;
    apt.fetch("Debian's Rust compiler (about 140 MB)", &apt.compiler()?)?;
    apt.unpack(folder)?;
    let rustc = wrapper(folder)?;
    complete_sysroot(folder, &rustc, &linkers)?;
    build_std(root, folder, &rustc)?;
    for done in ["std", "apt", "usr/share", "usr/src", "usr/include"] {
        let path = folder.join(done);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    fs::write(folder.join("recipe"), RECIPE)?;
    Ok(())
}

/// Packages of a server.
#[derive(Clone, Copy)]
pub(crate) struct Packages {
    /// Those that it is in, with those that they depend on.
    pub(crate) names: &'static [&'static str],
    /// How the names of its own packages begin: of others only libraries are taken, where this machine lacks them.
    pub(crate) own: &'static [&'static str],
    /// Taken without what they depend on.
    pub(crate) alone: &'static [&'static str],
}

/// Unpacks packages into a folder, but for some libraries.
pub(crate) fn unpack(root: &Path, folder: &Path, what: &str, packages: Packages, but_for: &[&str]) -> Result<()> {
    let apt = Apt::prepare(root, folder, None)?;
    let begins = |name: &str, with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    let mut needed = apt.depends(packages.names)?;
    needed.retain(|name| {
        let is_library = || name.starts_with("lib") && !begins(name, but_for) && !is_of_machine(name);
        begins(name, packages.own) || is_library()
    });
    needed.extend(packages.alone.iter().map(|&name| name.to_owned()));
    needed.sort_unstable();
    needed.dedup();
    apt.fetch(&format!("Debian's {what}"), &needed)?;
    apt.unpack(folder)?;
    fs::remove_dir_all(&apt.folder).with_context(|| format!("removing {}", apt.folder.display()))
}

/// Where the active toolchain keeps the linkers for components.
fn linkers() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(host_triple(Path::new("rustc"))?).join("bin");
    if !folder.join("wasm-component-ld").is_file() {
        bail!("the active Rust toolchain has no wasm-component-ld: install Rust with rustup");
    }
    Ok(folder)
}

fn host_triple(rustc: &Path) -> Result<String> {
    let version = output(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// A private root of apt: own lists, own cache, own sources.
struct Apt<'a> {
    root: &'a Path,
    folder: PathBuf,
}

impl<'a> Apt<'a> {
    /// Of this machine's release, and of a later one by name.
    fn prepare(root: &'a Path, folder: &Path, later: Option<&str>) -> Result<Self> {
        let this = Self { root, folder: folder.join("apt") };
        for part in ["lists/partial", "cache/archives/partial", "parts", "debs"] {
            fs::create_dir_all(this.folder.join(part))?;
        }
        fs::write(this.folder.join("sources.list"), sources(later)?)?;
        // Nothing but what is asked for by release comes from there.
        let pin = later.map(|later| format!("Package: *\nPin: release n={later}\nPin-Priority: 1\n"));
        fs::write(this.folder.join("preferences"), pin.unwrap_or_default())?;
        let mut update = this.command("apt-get");
        run_logged(root, "apt-update", "reading Debian's package lists", update.arg("update"))?;
        Ok(this)
    }

    fn command(&self, program: &str) -> Command {
        let path = |part: &str| self.folder.join(part).display().to_string();
        let user = output(Command::new("id").arg("-un")).unwrap_or_default();
        let mut command = Command::new(program);
        command.arg("-qq");
        for (key, value) in [
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", path("parts")),
            ("Dir::Etc::preferences", path("preferences")),
            ("Dir::Etc::preferencesparts", path("parts")),
            ("Dir::State::lists", path("lists")),
            ("Dir::Cache", path("cache")),
            ("APT::Sandbox::User", user.trim().to_owned()),
            ("Debug::NoLocking", "1".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ] {
            command.args(["-o", &format!("{key}={value}")]);
        }
        command
    }

    /// Packages and all that they depend on.
    fn depends(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        depends.args(["--no-replaces", "--no-enhances", "--no-pre-depends"]);
        let listed = output(depends.args(packages))?;
        let names = listed.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
        let mut names: Vec<String> = names.map(|name| name.split(':').next().unwrap_or(name).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The compiler and, of what it depends on, what this machine lacks.
    fn compiler(&self) -> Result<Vec<String>> {
        let mut packages = vec!["rustc-web".into(), "rust-web-src".into(), format!("wasi-libc/{LIBC_RELEASE}")];
        let own = |name: &String| name.starts_with("libstd-rust-web") || name.starts_with("libllvm");
        let depends = self.depends(&["libstd-rust-web-dev"])?;
        packages.extend(depends.into_iter().filter(|name| own(name) || !is_of_machine(name)));
        Ok(packages)
    }

    fn fetch(&self, what: &str, packages: &[String]) -> Result<()> {
        let mut download = self.command("apt-get");
        download.arg("download").args(packages).current_dir(self.folder.join("debs"));
        run_logged(self.root, "apt-download", &format!("fetching {what}"), &mut download)
    }

    fn unpack(&self, folder: &Path) -> Result<()> {
        say("unpacking");
        for deb in fs::read_dir(self.folder.join("debs"))? {
            let deb = deb?.path();
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(&deb).arg(folder);
            output(&mut unpack).with_context(|| format!("unpacking {}", deb.display()))?;
        }
        Ok(())
    }
}

/// Whether the machine has what a package has.
fn is_of_machine(package: &str) -> bool {
    if OF_THE_MACHINE.iter().any(|prefix| package.starts_with(prefix)) {
        return true;
    }
    let status = output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]));
    status.is_ok_and(|status| status.lines().any(|line| line == "installed"))
}

/// The machine's own Debian sources, and a later release from the same place.
fn sources(later: Option<&str>) -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let field = |key: &str| {
        release.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim_matches('"').to_owned()
    };
    let codename = field("VERSION_CODENAME=");
    if field("ID=") != "debian" {
        bail!("this is not Debian: run `rustup target add {TARGET}` on a machine that can fetch it");
    }
    let uris = output(Command::new("apt-get").args(["-o", "Debug::NoLocking=1", "update", "--print-uris"]))?;
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let signed = if Path::new(key).exists() { format!("[signed-by={key}] ") } else { String::new() };
    let mut lines = Vec::new();
    for line in uris.lines() {
        let Some((uri, rest)) = line.trim_start_matches('\'').split_once("/dists/") else { continue };
        let Some((name, _)) = rest.split_once("/InRelease") else { continue };
        if [codename.clone(), format!("{codename}-updates"), format!("{codename}-security")]
            .iter()
            .any(|own| own == name)
        {
            lines.push(format!("deb {signed}{uri} {name} main\n"));
        }
        if let Some(later) = later.filter(|later| name == codename && codename != *later) {
            lines.push(format!("deb {signed}{uri} {later} main\n"));
        }
    }
    lines.sort();
    lines.dedup();
    let last = later.unwrap_or(&codename);
    if !lines.iter().any(|line| line.contains(&format!(" {last} main"))) {
        bail!("found no Debian mirror in this machine's apt sources");
    }
    Ok(lines.concat())
}

/// A script that starts the compiler with its own libraries.
fn wrapper(folder: &Path) -> Result<PathBuf> {
    let libraries = fs::read_dir(folder.join("usr/lib"))?.flatten().map(|entry| entry.path()).find(|path| {
        let files = fs::read_dir(path).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("librustc_driver-"))
    });
    let libraries = libraries.context("the packages hold no librustc_driver")?;
    let path = folder.join("bin/rustc");
    fs::create_dir_all(folder.join("bin"))?;
    let (libraries, folder) = (libraries.display(), folder.display());
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH=\"{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\nexec \"{folder}/usr/bin/rustc\" \"$@\"\n"
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Puts the linkers and wasi-libc where the compiler looks for them.
fn complete_sysroot(folder: &Path, rustc: &Path, linkers: &Path) -> Result<()> {
    let rustlib = folder.join("usr/lib/rustlib");
    let bin = rustlib.join(host_triple(rustc)?).join("bin");
    if bin.is_dir() && !bin.is_symlink() {
        fs::remove_dir_all(&bin)?;
    }
    let _ = fs::remove_file(&bin);
    symlink(linkers, &bin).with_context(|| format!("linking {}", bin.display()))?;
    let contained = rustlib.join(TARGET).join("lib/self-contained");
    fs::create_dir_all(&contained)?;
    for file in ["libc.a", "crt1-command.o", "crt1-reactor.o"] {
        let from = folder.join("usr/lib").join(TARGET).join(file);
        fs::copy(&from, contained.join(file)).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

/// Builds the standard library once, so that connectors need no unstable flag.
fn build_std(root: &Path, folder: &Path, rustc: &Path) -> Result<()> {
    let package = folder.join("std");
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/lib.rs"), "#![no_std]\n")?;
    let manifest = "[package]\nname = \"wasi-std\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n";
    fs::write(package.join("Cargo.toml"), manifest)?;
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--target", TARGET, "-Z", "build-std=std,panic_abort"]).current_dir(&package);
    build.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", rustc).env("RUSTFLAGS", "-Cembed-bitcode=yes");
    build.env("CARGO_TARGET_DIR", package.join("target"));
    run_logged(root, "wasi-std", &format!("building the standard library for {TARGET}"), &mut build)?;
    let into = folder.join("usr/lib/rustlib").join(TARGET).join("lib");
    for file in fs::read_dir(package.join("target").join(TARGET).join("release/deps"))? {
        let file = file?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.contains("wasi_std") {
            fs::copy(&file, into.join(&name))?;
        }
    }
    Ok(())
}
