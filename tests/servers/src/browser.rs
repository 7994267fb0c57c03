//! Chromium, as Debian has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{libraries, root_of};

const PATH: &str = "usr/lib/chromium/chromium";

/// A browser, and what it is begun with.
#[derive(Debug)]
pub struct Browser {
    /// The program.
    pub program: PathBuf,
    /// What it needs of its environment.
    pub environment: BTreeMap<&'static str, String>,
}

impl Browser {
    /// Whether there is one.
    pub fn is_there() -> bool {
        root_of(PATH).is_some()
    }

    /// The one that there is, with what it writes in a folder.
    ///
    /// # Panics
    /// There is none.
    pub fn find(folder: &Path) -> Self {
        let root = root_of(PATH).expect("there is no chromium: `cargo xtask setup` fetches Debian's");
        let program = root.join(PATH);
        let mut environment = BTreeMap::new();
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            environment.insert(name, folder.display().to_string());
        }
        if let Some(libraries) = libraries(&program) {
            // Those who look for fonts look where they would be installed.
            let fonts = format!(
                "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>{}</dir><cachedir>{}</cachedir></fontconfig>",
                root.join("usr/share/fonts").display(),
                folder.join("fonts").display()
            );
            let place = folder.join("fonts.conf");
            fs::write(&place, fonts).expect("saying where fonts are");
            environment.insert("FONTCONFIG_FILE", place.display().to_string());
            environment.insert("LD_LIBRARY_PATH", libraries.to_string_lossy().into_owned());
        }
        Self { program, environment }
    }
}
