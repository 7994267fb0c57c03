//! Owns the building of connectors: each ends up as `target/connectors/NAME.wasm`.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::run_logged;
use crate::{cargo, toolchain};

/// The Rust connectors, by the name of their package.
const RUST: &[&str] = &["csv"];

/// Builds these connectors, or all.
pub(crate) fn build(root: &Path, names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !RUST.contains(name)) {
        bail!("there is no connector {unknown:?}; there are: {}", RUST.join(", "));
    }
    let names = if names.is_empty() { RUST } else { names };
    let compiler = toolchain::find(root)?;
    for name in names {
        build_rust(root, compiler.as_deref(), name, "target/connectors")?;
    }
    Ok(())
}

/// Builds the guest that misbehaves, for tests: `target/hostile/hostile.wasm`.
pub(crate) fn build_hostile(root: &Path) -> Result<()> {
    build_rust(root, toolchain::find(root)?.as_deref(), "hostile", "target/hostile")
}

fn build_rust(root: &Path, compiler: Option<&Path>, name: &str, folder: &str) -> Result<()> {
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder)?;
    let arguments = ["build", "--locked", "--profile", "guest", "--target", toolchain::TARGET, "--package", name];
    let mut command = cargo(&root.join("plugins"), &arguments);
    command.env("CARGO_TARGET_DIR", root.join("target/guests"));
    if let Some(rustc) = compiler {
        command.env("RUSTC", rustc);
    }
    run_logged(root, &format!("connector-{name}"), &format!("building the connector {name}"), &mut command)?;
    let guests = root.join("target/guests").join(toolchain::TARGET).join("guest");
    let built = guests.join(format!("{}.wasm", name.replace('-', "_")));
    std::fs::copy(&built, folder.join(format!("{name}.wasm")))
        .with_context(|| format!("copying {}", built.display()))?;
    Ok(())
}
