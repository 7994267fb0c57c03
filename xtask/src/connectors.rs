//! Owns the building of connectors: each ends up as `target/connectors/NAME.wasm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::scripts::{self, SCRIPTS};
use crate::shell::run_logged;
use crate::{cargo, toolchain};

/// The Rust connectors, by the name of their package.
const RUST: &[&str] = &["csv", "ldap", "sql"];
/// Those that are built without the names of their functions, to have a size that a component may have.
const SMALL: &[&str] = &["sql"];

/// Builds these connectors, or all.
pub(crate) fn build(root: &Path, names: &[&str]) -> Result<()> {
    let all: Vec<&str> = RUST.iter().chain(SCRIPTS).copied().collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no connector {unknown:?}; there are: {}", all.join(", "));
    }
    std::fs::create_dir_all(root.join("target/connectors"))?;
    for name in if names.is_empty() { &all } else { names } {
        match RUST.contains(name) {
            true => build_rust(root, name, "target/connectors")?,
            false => scripts::build(root, name)?,
        }
    }
    Ok(())
}

/// Builds the guests of tests and benchmarks, into `target/guest`: one that misbehaves, one that makes its changes up, and one that
/// brings a driver along.
pub(crate) fn build_guests(root: &Path) -> Result<()> {
    build_rust(root, "hostile", "target/guest")?;
    build_rust(root, "synthetic", "target/guest")?;
    scripts::build_driver(root)
}

/// Leaves this machine's folders out of components, in which they take room, and tell where each was built.
#[expect(clippy::disallowed_methods, reason = "where cargo keeps sources")]
fn without_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    let registries = sources.into_iter().flatten().flatten().map(|registry| registry.path());
    let folders = registries.chain([root.to_owned()]);
    folders.map(|folder| format!("--remap-path-prefix={}=", folder.display())).collect()
}

fn build_rust(root: &Path, name: &str, folder: &str) -> Result<()> {
    let compiler = toolchain::find(root)?;
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder)?;
    let profile = if SMALL.contains(&name) { "guest-small" } else { "guest" };
    let arguments = ["build", "--locked", "--profile", profile, "--target", toolchain::TARGET, "--package", name];
    let mut command = cargo(&root.join("plugins"), &arguments);
    command.env("CARGO_TARGET_DIR", root.join("target/guests"));
    command.env("CARGO_ENCODED_RUSTFLAGS", without_paths(root).join("\u{1f}"));
    if let Some(rustc) = compiler {
        command.env("RUSTC", rustc);
    }
    run_logged(root, &format!("connector-{name}"), &format!("building the connector {name}"), &mut command)?;
    let guests = root.join("target/guests").join(toolchain::TARGET).join(profile);
    let built = guests.join(format!("{}.wasm", name.replace('-', "_")));
    std::fs::copy(&built, folder.join(format!("{name}.wasm")))
        .with_context(|| format!("copying {}", built.display()))?;
    Ok(())
}
