//! Finds or makes a compiler for connectors written in Rust. In this order: the target is installed; rustup can install it;
//! on Debian, a private compiler from Debian's own packages under `target/wasi-toolchain`, without root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::debian;
use crate::shell::{exists, hold, output, run_logged, say};

/// What connectors are built for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// The compiler to use, if it is not the ordinary one.
pub(crate) fn find(root: &Path) -> Result<Option<PathBuf>> {
    let folder = root.join("target/wasi-toolchain");
    let _held = hold(&folder)?;
    if has_target(Path::new("rustc")) {
        return Ok(None);
    }
    let rustc = folder.join("bin/rustc");
    if debian::is_ready(&folder) && has_target(&rustc) {
        return Ok(Some(rustc));
    }
    if rustup(root, &folder) {
        return Ok(None);
    }
    if !exists("apt-get") || !exists("dpkg-deb") {
        bail!(
            "connectors need the Rust target {TARGET}: run `rustup target add {TARGET}` on a machine that can fetch it"
        );
    }
    debian::install(root, &folder)?;
    if !has_target(&rustc) {
        bail!("the private compiler in {} lacks {TARGET}; remove that folder and try again", folder.display());
    }
    Ok(Some(rustc))
}

/// Whether a compiler has the standard library for connectors.
fn has_target(rustc: &Path) -> bool {
    let Ok(sysroot) = output(Command::new(rustc).args(["--print", "sysroot"])) else { return false };
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib");
    let Ok(files) = std::fs::read_dir(folder) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Lets rustup install the target, unless it is told not to install by itself. A failed try is remembered, so that a machine
/// without network pays for it once.
#[expect(clippy::disallowed_methods, reason = "rustup's own switch")]
fn rustup(root: &Path, folder: &Path) -> bool {
    let failed = folder.join("rustup-failed");
    let allowed = std::env::var("RUSTUP_AUTO_INSTALL").map_or(true, |value| value != "0");
    if !allowed || !exists("rustup") || failed.exists() {
        return false;
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET]);
    let added = run_logged(root, "rustup", &format!("rustup target add {TARGET}"), &mut add);
    if added.is_ok() && has_target(Path::new("rustc")) {
        return true;
    }
    say(&format!("rustup can't install {TARGET} here; taking Debian's packages"));
    let _ = File::create(failed);
    false
}
