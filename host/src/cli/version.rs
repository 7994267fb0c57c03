//! `tidewaiter version`: what this program is made of, for whoever reports a fault or looks whether an advisory concerns it.

use std::fmt::Write as _;

use serde::Serialize;

use super::fail::Fail;
use super::print;
use crate::trust::WORLD;
use crate::{db, wasm};

/// What is known of a build. What isn't is left out.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Version {
    tidewaiter: &'static str,
    /// The one that connectors are built for.
    contract: String,
    /// The newest format of the data that it reads, which is the one that it writes.
    data_format: u64,
    wasmtime: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redb: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rustc: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
}

impl Version {
    fn of_this_program() -> Self {
        let known = |said: &'static str| Some(said).filter(|said| !said.is_empty());
        Self {
            tidewaiter: env!("CARGO_PKG_VERSION"),
            contract: WORLD.replace("/connector@", "@"),
            data_format: db::FORMAT_NOW,
            wasmtime: wasm::ENGINE_VERSION,
            redb: known(env!("TIDEWAITER_REDB")),
            rustc: known(env!("TIDEWAITER_RUSTC")),
            target: known(env!("TIDEWAITER_TARGET")),
            // Whoever builds from a checkout may say which; a build script that asked git would build this crate anew with each commit.
            commit: option_env!("TIDEWAITER_COMMIT").and_then(known),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("tidewaiter {}\ncontract   {}\n", self.tidewaiter, self.contract);
        let _ = writeln!(text, "data       format {}\nwasmtime   {}", self.data_format, self.wasmtime);
        let rest = [("redb", self.redb), ("rustc", self.rustc), ("target", self.target), ("commit", self.commit)];
        for (name, said) in rest.into_iter().filter_map(|(name, said)| Some((name, said?))) {
            let _ = writeln!(text, "{name:<10} {}", said.trim_start_matches("rustc "));
        }
        text
    }
}

pub(super) fn print(json: bool) -> Result<(), Fail> {
    print::out(json, &Version::of_this_program(), Version::text)
}
