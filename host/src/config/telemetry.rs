//! What operators write about who watches the host: `[telemetry]`.

use http::Uri;
use serde::Deserialize;
use tidewaiter_core::grant::destination::Destination;

/// The longest name of a service, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// A collector that speaks OTLP over HTTP: what comes before `/v1/traces`.
    pub otlp: Uri,
    /// What the host is called there.
    pub service_name: String,
}

impl Telemetry {
    /// Where exactly.
    pub(crate) fn traces(&self) -> String {
        format!("{}/v1/traces", self.otlp.to_string().trim_end_matches('/'))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TelemetryTable {
    otlp: String,
    #[serde(default = "service_name")]
    service_name: String,
}

fn service_name() -> String {
    "tidewaiter".to_owned()
}

impl TelemetryTable {
    pub(super) fn telemetry(self) -> Result<Telemetry, String> {
        let bad = |problem: &dyn std::fmt::Display| format!("telemetry.otlp: {problem}");
        let otlp: Uri = self.otlp.parse().map_err(|error: http::uri::InvalidUri| bad(&error))?;
        let authority = otlp.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let to = Destination::parse(otlp.scheme_str().unwrap_or_default(), authority);
        to.map_err(|error| bad(&error))?;
        if otlp.query().is_some() {
            return Err(bad(&"a collector is named without a query"));
        }
        match self.service_name.len() {
            0 => Err("telemetry.service-name: it is empty".to_owned()),
            length if length > NAME_BYTES_MAX => {
                Err(format!("telemetry.service-name: {length} bytes, more than {NAME_BYTES_MAX}"))
            }
            _ => Ok(Telemetry { otlp, service_name: self.service_name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Telemetry, String> {
        let table: TelemetryTable = toml::from_str(text).map_err(|error| error.to_string())?;
        table.telemetry()
    }

    #[test]
    fn a_collector_is_a_url_without_a_login_or_a_query() {
        for (text, traces) in [
            ("otlp = \"http://127.0.0.1:4318\"", "http://127.0.0.1:4318/v1/traces"),
            ("otlp = \"https://otel.example.com/a/\"", "https://otel.example.com/a/v1/traces"),
        ] {
            let read = read(text).unwrap();
            assert_eq!((read.traces().as_str(), read.service_name.as_str()), (traces, "tidewaiter"));
        }
        for text in [
            "otlp = \"127.0.0.1:4318\"",
            "otlp = \"/v1\"",
            "otlp = \"ftp://example.com\"",
            "otlp = \"http://ann:secret@example.com\"",
            "otlp = \"http://example.com?a=b\"",
            "otlp = \"http://example.com\"\nservice-name = \"\"",
            "service-name = \"x\"",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
