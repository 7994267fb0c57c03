//! What operators write about sinks: `[sinks.NAME]`.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use tidewaiter_core::refusal::Patience;

use super::credentials::SourceTable;
use super::timing::span;
use crate::secret::Source;
use crate::sink::OwnSink;
use crate::sink::webhook::{Format, REFUSALS, Settings};

/// Entries of a request unless something else is configured.
const BATCH_COUNT: usize = 100;
/// The most that can be configured.
const BATCH_COUNT_MAX: usize = 4096;
/// Bytes of a request unless something else is configured.
const BATCH_BYTES: usize = 1024 * 1024;
/// The most that can be configured: no more than the journal hands out at a time.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a request may take unless something else is configured.
const TIME: Duration = Duration::from_secs(30);
/// The most that can be configured.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Dead letters of a sink unless something else is configured.
const DEAD_LETTERS: u64 = 1000;
/// The most that can be configured.
const DEAD_LETTERS_MAX: u64 = 10_000;
/// The most bytes of them.
const DEAD_LETTER_BYTES: u64 = 16 * 1024 * 1024;

/// A sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// Where entries go.
    pub to: SinkTo,
    /// Whoever asks for a run waits until it has what the run journaled.
    pub inline: bool,
    /// When an entry that it refuses becomes a dead letter.
    pub patience: Patience,
}

/// Where entries go.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkTo {
    /// A file that entries are written to.
    Ndjson {
        /// Which.
        path: PathBuf,
    },
    /// A URL that entries are sent to.
    Webhook(Box<Settings>),
    /// What the program that embeds the host does with them. Not in a file.
    Own(OwnSink),
}

impl SinkTo {
    /// The name of the case, as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ndjson { .. } => "ndjson",
            Self::Webhook(_) => "webhook",
            Self::Own(_) => "own",
        }
    }
}

impl SinkConfig {
    /// Where its secrets are.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        let settings = match &self.to {
            SinkTo::Ndjson { .. } | SinkTo::Own(_) => None,
            SinkTo::Webhook(settings) => Some(settings),
        };
        settings.into_iter().flat_map(|settings| settings.secret.iter().chain(&settings.bearer))
    }
}

/// The keys of all types in one table, so that an error shows the line of the key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct SinkTable {
    r#type: Type,
    #[serde(default)]
    inline: bool,
    path: Option<PathBuf>,
    url: Option<String>,
    format: Option<Format>,
    secret: Option<SourceTable>,
    bearer: Option<SourceTable>,
    batch: Option<NonZeroUsize>,
    batch_bytes: Option<NonZeroUsize>,
    gzip: Option<bool>,
    #[serde(default, deserialize_with = "span")]
    timeout: Option<jiff::SignedDuration>,
    refusals: Option<Vec<u16>>,
    max_retries: Option<u32>,
    dead_letters: Option<NonZeroU64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Ndjson,
    Webhook,
}

impl SinkTable {
    /// Relative files begin at `base`. An error begins with the key that is wrong.
    fn sink(self, base: &Path) -> Result<SinkConfig, String> {
        if let Some(key) = self.key_of_another_type() {
            return Err(format!("{key}: a sink of this type has none"));
        }
        let (inline, patience) = (self.inline, self.patience()?);
        let to = match (self.r#type, self.path) {
            (Type::Webhook, _) => SinkTo::Webhook(Box::new(Self { path: None, ..self }.webhook(base)?)),
            (Type::Ndjson, Some(path)) => SinkTo::Ndjson { path: base.join(path) },
            (Type::Ndjson, None) => return Err("path: it is missing: the file to write to".into()),
        };
        Ok(SinkConfig { to, inline, patience })
    }

    fn patience(&self) -> Result<Patience, String> {
        if self.max_retries.is_none() && self.dead_letters.is_some() {
            return Err(
                "dead-letters: without max-retries an entry is sent again for ever, and none becomes one".into()
            );
        }
        let letters_max = self.dead_letters.map_or(DEAD_LETTERS, NonZeroU64::get);
        if letters_max > DEAD_LETTERS_MAX {
            return Err(format!("dead-letters: {letters_max} is not in 1..={DEAD_LETTERS_MAX}"));
        }
        Ok(Patience { retries_max: self.max_retries, letters_max, letter_bytes_max: DEAD_LETTER_BYTES })
    }

    fn key_of_another_type(&self) -> Option<&'static str> {
        let of_files = [("path", self.path.is_some())];
        let of_webhooks = [
            ("url", self.url.is_some()),
            ("format", self.format.is_some()),
            ("secret", self.secret.is_some()),
            ("bearer", self.bearer.is_some()),
            ("batch", self.batch.is_some()),
            ("batch-bytes", self.batch_bytes.is_some()),
            ("gzip", self.gzip.is_some()),
            ("timeout", self.timeout.is_some()),
            ("refusals", self.refusals.is_some()),
            ("max-retries", self.max_retries.is_some()),
            ("dead-letters", self.dead_letters.is_some()),
        ];
        let others = match self.r#type {
            Type::Ndjson => &of_webhooks[..],
            Type::Webhook => &of_files,
        };
        others.iter().find(|(_, is_there)| *is_there).map(|(key, _)| *key)
    }

    fn webhook(self, base: &Path) -> Result<Settings, String> {
        let url = self.url.ok_or("url: it is missing: where to send entries")?;
        // A part of it may be as good as a secret, so it is not quoted.
        let url = url.parse().map_err(|error| format!("url: {error}"))?;
        let source = |table: Option<SourceTable>, key: &str| {
            table.map(|table| table.source(base).map_err(|problem| format!("{key}: {problem}"))).transpose()
        };
        let format = self.format.unwrap_or_default();
        let batch = self.batch.map(NonZeroUsize::get);
        if let (Some(batch), Some(max)) = (batch, format.entries_max())
            && batch > max
        {
            return Err(format!("batch: a request in the format {format} has one entry"));
        }
        let settings = Settings {
            url,
            format,
            secret: source(self.secret, "secret")?,
            bearer: source(self.bearer, "bearer")?,
            batch_count_max: format.entries_max().or(batch).unwrap_or(BATCH_COUNT),
            batch_bytes_max: self.batch_bytes.map_or(BATCH_BYTES, NonZeroUsize::get),
            gzip: self.gzip.unwrap_or(true),
            time_max: time(self.timeout)?,
            refusals: self.refusals.map_or_else(|| Ok(REFUSALS.to_vec()), refusals)?,
        };
        settings.server().map_err(|error| format!("url: {}", error.problem()))?;
        for (key, value, max) in [
            ("batch", settings.batch_count_max, BATCH_COUNT_MAX),
            ("batch-bytes", settings.batch_bytes_max, BATCH_BYTES_MAX),
        ] {
            if value > max {
                return Err(format!("{key}: {value} is not in 1..={max}"));
            }
        }
        Ok(settings)
    }
}

fn time(given: Option<jiff::SignedDuration>) -> Result<Duration, String> {
    match given {
        None => Ok(TIME),
        Some(time) if time.is_positive() && time.unsigned_abs() <= TIME_MAX => Ok(time.unsigned_abs()),
        Some(_) => Err(format!("timeout: it needs some time, and at most {} s", TIME_MAX.as_secs())),
    }
}

fn refusals(given: Vec<u16>) -> Result<Vec<StatusCode>, String> {
    let status = |number: u16| {
        let status = StatusCode::from_u16(number).ok();
        let bad = || format!("refusals: {number} is no status of a refusal: those are in 400..=599");
        status.filter(|status| status.is_client_error() || status.is_server_error()).ok_or_else(bad)
    };
    given.into_iter().map(status).collect()
}

/// All of a host.
pub(super) fn sinks(tables: BTreeMap<String, SinkTable>, base: &Path) -> Result<BTreeMap<String, SinkConfig>, String> {
    let sink = |(name, table): (String, SinkTable)| match table.sink(base) {
        Ok(sink) => Ok((name, sink)),
        Err(problem) => Err(format!("sinks.{name}.{problem}")),
    };
    tables.into_iter().map(sink).collect()
}
