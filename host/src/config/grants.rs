//! What operators write to allow something: a file of grants for a connection, and the ceiling in the same form.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidewaiter_core::grant::Grants;
use tidewaiter_core::grant::address::Range;
use tidewaiter_core::grant::http::{Destination, Scheme};
use tidewaiter_core::grant::policy::HttpGrant;
use toml::{Table, Value};

/// Either file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantsFile {
    #[serde(default)]
    read: Vec<PathBuf>,
    #[serde(default)]
    http: Vec<HttpEntry>,
    #[serde(default)]
    reveal: Vec<String>,
}

impl GrantsFile {
    /// Relative folders begin at `base`.
    pub(super) fn grants(self, base: &Path) -> Grants {
        Grants {
            read: self.read.into_iter().map(|folder| base.join(folder)).collect(),
            http: self.http.into_iter().map(|HttpEntry(grant)| grant).collect(),
            reveal: self.reveal,
        }
    }
}

/// A destination alone, or a table with one.
struct HttpEntry(HttpGrant);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    to: String,
    methods: Option<Vec<String>>,
    #[serde(default, rename = "in")]
    ranges: Vec<String>,
    proxy: Option<String>,
}

impl HttpTable {
    fn grant(self) -> Result<HttpGrant, String> {
        let grant = HttpGrant {
            to: self.to.parse().map_err(|error| format!("to: {error}"))?,
            methods: self.methods.map(|methods| methods.into_iter().map(method).collect()).transpose()?,
            ranges: self
                .ranges
                .iter()
                .map(|range| range.parse::<Range>())
                .collect::<Result<_, _>>()
                .map_err(in_ranges)?,
            proxy: self.proxy.map(|text| proxy(&text)).transpose()?,
        };
        match grant.proxy.is_some() && !grant.ranges.is_empty() {
            true => Err("in: behind a proxy no address is seen; grant the name alone".into()),
            false => Ok(grant),
        }
    }
}

fn in_ranges(error: impl fmt::Display) -> String {
    format!("in: {error}")
}

fn method(text: String) -> Result<String, String> {
    match text.as_str() {
        "CONNECT" => Err("methods: CONNECT is not sent for connectors".into()),
        text if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
            Ok(text.into())
        }
        text => Err(format!("methods: {text:?} is none; they are written in capitals, as in \"GET\"")),
    }
}

fn proxy(text: &str) -> Result<Destination, String> {
    let proxy: Destination = text.parse().map_err(|error| format!("proxy: {error}"))?;
    match proxy.scheme {
        Scheme::Http => Ok(proxy),
        Scheme::Https => Err("proxy: it is spoken to in clear, as in \"http://proxy.corp:3128\"".into()),
    }
}

impl<'de> Deserialize<'de> for HttpEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = HttpEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"https://HOST\" or { to = \"https://HOST\", … }")
            }

            fn visit_str<E: Error>(self, to: &str) -> Result<HttpEntry, E> {
                let table = HttpTable { to: to.to_owned(), methods: None, ranges: Vec::new(), proxy: None };
                table.grant().map(HttpEntry).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HttpEntry, A::Error> {
                let table = HttpTable::deserialize(MapAccessDeserializer::new(map))?;
                table.grant().map(HttpEntry).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

/// The lines of a file that grant what is there and what is missing, of those keys of which something is missing. Folders below
/// `base` are written as they are seen from there.
pub(crate) fn grant_lines(there: &Grants, missing: &Grants, base: &Path) -> Vec<String> {
    let folder = |folder: &PathBuf| text(&folder.strip_prefix(base).unwrap_or(folder).display().to_string());
    let line = |key: &str, there: Vec<Value>, missing: Vec<Value>| {
        let all = there.into_iter().chain(missing.iter().cloned()).collect();
        (!missing.is_empty()).then(|| format!("{key} = {}", Value::Array(all)))
    };
    let folders = |grants: &Grants| grants.read.iter().map(folder).collect();
    let https = |grants: &Grants| grants.http.iter().map(written).collect();
    let reveals = |grants: &Grants| grants.reveal.iter().map(|name| text(name)).collect();
    let lines = [
        line("read", folders(there), folders(missing)),
        line("http", https(there), https(missing)),
        line("reveal", reveals(there), reveals(missing)),
    ];
    lines.into_iter().flatten().collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// An entry as an operator writes it.
fn written(grant: &HttpGrant) -> Value {
    let to = text(&grant.to.to_string());
    if *grant == HttpGrant::to(grant.to.clone()) {
        return to;
    }
    let list = |texts: Vec<String>| Value::Array(texts.iter().map(|each| text(each)).collect());
    let mut table = Table::from_iter([("to".to_owned(), to)]);
    if let Some(methods) = &grant.methods {
        table.insert("methods".into(), list(methods.clone()));
    }
    if !grant.ranges.is_empty() {
        table.insert("in".into(), list(grant.ranges.iter().map(ToString::to_string).collect()));
    }
    if let Some(proxy) = &grant.proxy {
        table.insert("proxy".into(), text(&proxy.to_string()));
    }
    Value::Table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(file: &str) -> Result<Grants, String> {
        toml::from_str::<GrantsFile>(file)
            .map(|file| file.grants(Path::new("/base")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_grants_says_what_may_be_reached() {
        let file = r#"
read = ["people", "/srv"]
http = ["https://API.example.com", { to = "https://*.corp.example:8443", methods = ["GET"], in = ["10.0.0.0/8"] },
        { to = "https://out.example", proxy = "http://proxy.corp:3128" }]
reveal = ["bind"]
"#;
        let grants = parsed(file).unwrap();
        assert_eq!(grants.read, [PathBuf::from("/base/people"), "/srv".into()]);
        assert_eq!((grants.reveal.as_slice(), grants.http.len()), (&["bind".to_owned()][..], 3));
        let missing =
            Grants { read: vec!["/base/x".into()], http: grants.http[..1].to_vec(), reveal: vec!["y".into()] };
        let lines = grant_lines(&grants, &missing, Path::new("/base")).join("\n");
        let again = parsed(&lines).unwrap();
        assert_eq!(again.read, [PathBuf::from("/base/people"), "/srv".into(), "/base/x".into()]);
        assert_eq!(again.http, [&grants.http[..], &grants.http[..1]].concat(), "{lines}");
        assert_eq!(again.reveal, ["bind", "y"]);
        assert_eq!(grant_lines(&grants, &Grants::default(), Path::new("/base")), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_shown_with_its_line() {
        for (entry, problem) in [
            ("\"api.example.com\"", "neither http:// nor https://"),
            ("\"https://api.example.com/v1\"", "more than a host and a port"),
            ("{ to = \"https://a.b\", mehtods = [] }", "mehtods"),
            ("{ to = \"https://a.b\", methods = [\"get\"] }", "in capitals"),
            ("{ to = \"https://a.b\", methods = [\"CONNECT\"] }", "CONNECT is not sent"),
            ("{ to = \"https://a.b\", in = [\"127.0.0.0/8\"] }", "grant the address itself"),
            ("{ to = \"https://a.b\", proxy = \"https://p\" }", "in clear"),
            ("{ to = \"https://a.b\", proxy = \"http://p\", in = [\"10.0.0.0/8\"] }", "no address is seen"),
            ("7", "expected \"https://HOST\""),
        ] {
            let error = parsed(&format!("read = []\nhttp = [{entry}]")).unwrap_err();
            assert!(error.contains(problem) && error.contains("line 2"), "{entry}: {error}");
        }
    }
}
