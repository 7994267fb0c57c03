//! What operators write to allow something: a file of grants for a connection, and the ceiling in the same form.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tidewaiter_core::grant::Grants;
use tidewaiter_core::grant::address::Range;
use tidewaiter_core::grant::destination::{Destination, Pattern, Scheme};
use tidewaiter_core::grant::policy::EgressGrant;
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
    tcp: Vec<TcpEntry>,
    #[serde(default)]
    reveal: Vec<String>,
}

impl GrantsFile {
    /// Relative folders begin at `base`.
    pub(super) fn grants(self, base: &Path) -> Grants {
        let http = self.http.into_iter().map(|HttpEntry(grant)| grant);
        let tcp = self.tcp.into_iter().map(|TcpEntry(grant)| grant);
        Grants {
            read: self.read.into_iter().map(|folder| base.join(folder)).collect(),
            egress: http.chain(tcp).collect(),
            reveal: self.reveal,
        }
    }
}

/// A destination alone, or a table with one.
struct HttpEntry(EgressGrant);

/// As `HttpEntry`.
struct TcpEntry(EgressGrant);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpTable {
    to: String,
    #[serde(default, rename = "in")]
    ranges: Vec<String>,
    #[serde(default)]
    tls: Tls,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tls {
    #[default]
    Optional,
    Required,
}

impl TcpTable {
    fn alone(to: String) -> Self {
        Self { to, ranges: Vec::new(), tls: Tls::Optional }
    }

    fn grant(self) -> Result<EgressGrant, String> {
        let to = Pattern::tcp(&self.to).map_err(|error| format!("to: {error}"))?;
        Ok(EgressGrant { ranges: ranges(&self.ranges)?, tls: self.tls == Tls::Required, ..EgressGrant::to(to) })
    }
}

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
    fn alone(to: String) -> Self {
        Self { to, methods: None, ranges: Vec::new(), proxy: None }
    }

    fn grant(self) -> Result<EgressGrant, String> {
        let to = self.to.parse().map_err(|error| format!("to: {error}"))?;
        let grant = EgressGrant {
            methods: self.methods.map(|methods| methods.into_iter().map(method).collect()).transpose()?,
            ranges: ranges(&self.ranges)?,
            proxy: self.proxy.map(|text| proxy(&text)).transpose()?,
            ..EgressGrant::to(to)
        };
        match grant.proxy.is_some() && !grant.ranges.is_empty() {
            true => Err("in: behind a proxy no address is seen; grant the name alone".into()),
            false => Ok(grant),
        }
    }
}

fn ranges(texts: &[String]) -> Result<Vec<Range>, String> {
    texts.iter().map(|range| range.parse().map_err(|error| format!("in: {error}"))).collect()
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
        Scheme::Https | Scheme::Tcp => Err("proxy: it is spoken to in clear, as in \"http://proxy.corp:3128\"".into()),
    }
}

impl<'de> Deserialize<'de> for HttpEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let example = "\"https://HOST\" or { to = \"https://HOST\", … }";
        Entry { example, alone: HttpTable::alone, grant: HttpTable::grant }.read(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for TcpEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let example = "\"HOST:PORT\" or { to = \"HOST:PORT\", … }";
        Entry { example, alone: TcpTable::alone, grant: TcpTable::grant }.read(deserializer).map(Self)
    }
}

/// Reads a destination alone, or a table with one.
struct Entry<T> {
    example: &'static str,
    alone: fn(String) -> T,
    grant: fn(T) -> Result<EgressGrant, String>,
}

impl<'de, T: Deserialize<'de>> Entry<T> {
    fn read<D: Deserializer<'de>>(self, deserializer: D) -> Result<EgressGrant, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entry<T> {
    type Value = EgressGrant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.example)
    }

    fn visit_str<E: Error>(self, to: &str) -> Result<EgressGrant, E> {
        (self.grant)((self.alone)(to.to_owned())).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EgressGrant, A::Error> {
        (self.grant)(T::deserialize(MapAccessDeserializer::new(map))?).map_err(A::Error::custom)
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
    let sent = |grants: &Grants, is_tcp: bool| {
        grants.egress.iter().filter(|grant| (grant.to.scheme() == Scheme::Tcp) == is_tcp).map(written).collect()
    };
    let reveals = |grants: &Grants| grants.reveal.iter().map(|name| text(name)).collect();
    let lines = [
        line("read", folders(there), folders(missing)),
        line("http", sent(there, false), sent(missing, false)),
        line("tcp", sent(there, true), sent(missing, true)),
        line("reveal", reveals(there), reveals(missing)),
    ];
    lines.into_iter().flatten().collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// An entry as an operator writes it.
fn written(grant: &EgressGrant) -> Value {
    let to = text(&grant.to.to_string());
    if *grant == EgressGrant::to(grant.to.clone()) {
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
    if grant.tls {
        table.insert("tls".into(), text("required"));
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
tcp = ["db.corp:5432", { to = "*.ldap.corp:636", in = ["10.0.0.0/8"], tls = "required" }]
reveal = ["bind"]
"#;
        let grants = parsed(file).unwrap();
        assert_eq!(grants.read, [PathBuf::from("/base/people"), "/srv".into()]);
        assert_eq!((grants.reveal.as_slice(), grants.egress.len()), (&["bind".to_owned()][..], 5));
        let missing =
            Grants { read: vec!["/base/x".into()], egress: grants.egress[2..4].to_vec(), reveal: vec!["y".into()] };
        let lines = grant_lines(&grants, &missing, Path::new("/base")).join("\n");
        let again = parsed(&lines).unwrap();
        assert_eq!(again.read, [PathBuf::from("/base/people"), "/srv".into(), "/base/x".into()]);
        let [http @ .., db, ldap] = grants.egress.as_slice() else { panic!("{grants:?}") };
        let expected = [http, &http[2..], &[db.clone(), ldap.clone(), db.clone()]].concat();
        assert_eq!(again.egress, expected, "{lines}");
        assert!(ldap.tls && !db.tls && lines.contains("tls = \"required\""), "{lines}");
        assert_eq!(again.reveal, ["bind", "y"]);
        assert_eq!(grant_lines(&grants, &Grants::default(), Path::new("/base")), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_shown_with_its_line() {
        let http = [
            ("\"api.example.com\"", "neither http:// nor https://"),
            ("\"https://api.example.com/v1\"", "more than a host and a port"),
            ("{ to = \"https://a.b\", mehtods = [] }", "mehtods"),
            ("{ to = \"https://a.b\", methods = [\"get\"] }", "in capitals"),
            ("{ to = \"https://a.b\", methods = [\"CONNECT\"] }", "CONNECT is not sent"),
            ("{ to = \"https://a.b\", in = [\"127.0.0.0/8\"] }", "grant the address itself"),
            ("{ to = \"https://a.b\", proxy = \"https://p\" }", "in clear"),
            ("{ to = \"https://a.b\", proxy = \"http://p\", in = [\"10.0.0.0/8\"] }", "no address is seen"),
            ("7", "expected \"https://HOST\""),
        ];
        let tcp = [
            ("\"ldap.corp\"", "a port has to be named"),
            ("{ to = \"ldap.corp:636\", tls = \"never\" }", "unknown variant `never`"),
            ("{ to = \"ldap.corp:636\", in = [\"127.0.0.0/8\"] }", "grant the address itself"),
            ("{ to = \"ldap.corp:636\", methods = [\"GET\"] }", "methods"),
            ("7", "expected \"HOST:PORT\""),
        ];
        for (key, cases) in [("http", &http[..]), ("tcp", &tcp[..])] {
            for (entry, problem) in cases {
                let error = parsed(&format!("read = []\n{key} = [{entry}]")).unwrap_err();
                assert!(error.contains(problem) && error.contains("line 2"), "{entry}: {error}");
            }
        }
    }
}
