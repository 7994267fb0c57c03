//! How the log is written to standard error: as text for people, or as JSON for machines. What is logged is up to whoever logs it; both
//! forms have the same fields by the same names.

use std::fmt::{self, Debug};
use std::io::{IsTerminal, Write};

use serde::Serializer;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::fail::{Exit, Fail};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Begins the log: of what a filter lets through.
pub(super) fn begin(filter: &str, format: Format) -> Result<(), Fail> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| Fail::new(Exit::Usage, format!("--log {filter}: {error}")))?;
    // A log that nobody reads any more stops nothing.
    let log = tracing_subscriber::fmt().log_internal_errors(false).with_env_filter(filter);
    let log = log.with_writer(std::io::stderr);
    match format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => log.with_ansi(false).event_format(Json).init(),
    }
    Ok(())
}

/// Says with what a process ends that could not do what it was told: whoever reads lines of JSON gets one, whatever the filter says.
pub(super) fn failed(fail: &Fail, format: Format) {
    let message = fail.to_string();
    match format {
        Format::Json if !message.is_empty() => {
            let mut fields = head(Level::ERROR, "tidewaiter");
            fields.push(("message", message.into()));
            fields.push(("exit", (fail.exit as u8).into()));
            let _ = writeln!(std::io::stderr(), "{}", line(&fields));
        }
        _ => fail.tell(),
    }
}

/// Spans are left out: nobody here makes any.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(head(*event.metadata().level(), event.metadata().target()));
        event.record(&mut fields);
        writeln!(writer, "{}", line(&fields.0))
    }
}

/// What every line begins with.
fn head(level: Level, target: &'static str) -> Vec<(&'static str, Value)> {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    vec![("timestamp", time.into()), ("level", level.as_str().into()), ("target", target.into())]
}

/// In the order in which they were said, which a map of JSON would not keep.
fn line(fields: &[(&'static str, Value)]) -> String {
    let mut line = Vec::new();
    let written = serde_json::Serializer::new(&mut line).collect_map(fields.iter().map(|(name, value)| (name, value)));
    written.map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&line).into_owned())
}

struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        // As the text has it, where Rust's own words are names.
        self.0.push((name.strip_prefix("r#").unwrap_or(name), value.into()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}"));
    }
}
