//! Secrets and names from places of the program's own: the key that the data is encrypted with, a login that the connector never sees, and the resolver that
//! its requests go by.
//!
//! `cargo run --profile house --example own_secrets -- target/connectors`
#![allow(clippy::print_stdout, missing_docs, reason = "an example")]

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tidewaiter::config::{ConnectionConfig, TypeConfig};
use tidewaiter::core::grant::Grants;
use tidewaiter::core::name::TypeKey;
use tidewaiter::core::run::Trigger;
use tidewaiter::egress::{Credential, Kind, Resolve, Resolving};
use tidewaiter::host::Host;
use tidewaiter::secret::{Own, OwnReading, Secret, Secrets, Source};
use tidewaiter::trust::Mode;

/// As a vault would be.
#[derive(Debug)]
struct Vault(HashMap<&'static str, &'static str>);

impl Secrets for Vault {
    fn read(&self, name: &str) -> OwnReading {
        let found = self.0.get(name).map(|secret| Secret::from(secret.as_bytes().to_vec()));
        Box::pin(async move { found.ok_or_else(|| "the vault has none of that name".to_owned()) })
    }
}

/// Knows one server, and no other.
#[derive(Debug)]
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: &str) -> Resolving {
        let found = (name == "people.example.org").then(|| vec![IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7))]);
        Box::pin(async move { found.ok_or_else(|| io::Error::other("there is no such name")) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let connectors = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "target/connectors".to_owned()));
    let place = tempfile::tempdir()?;
    let people = place.path().join("people");
    std::fs::create_dir(&people)?;
    std::fs::write(people.join("people.csv"), "id,mail,updated_at\n")?;

    // A key of 32 bytes, in base64: whoever copies this has published it.
    let key = ("data", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let vault: Arc<dyn Secrets> = Arc::new(Vault(HashMap::from([key, ("crm", "s3cret")])));
    let secret = |name: &str| Source::Own(Own::new(Arc::clone(&vault), name));
    let login = Credential {
        name: "crm".to_owned(),
        to: vec!["https://people.example.org".parse()?],
        kind: Kind::Bearer { token: secret("crm") },
    };

    let account = TypeConfig { class: "account".to_owned(), ..TypeConfig::default() };
    let settings = json!({ "folder": people, "uid": "id", "updated_at": "updated_at" });
    let mut connection = ConnectionConfig::new("csv".parse()?, settings)
        .object_type("account".parse()?, account)
        .granted(Grants { read: vec![people], ..Grants::default() });
    connection.access.credentials.push(login);

    let host = Host::builder(place.path().join("data"))
        .connectors(std::path::absolute(connectors)?)
        .trusts(Mode::Any)
        .resolver(Arc::new(Names))
        .connection("hr".parse()?, connection)
        .configure(|config| config.encryption.key = Some(secret("data")))
        .start()
        .await?;
    let account = TypeKey { connection: "hr".parse()?, object_type: "account".parse()? };
    let report = host.sync(account, Trigger::Command).await?;
    println!("run {} ended {}", report.run, report.outcome.name());
    let key = host.db().key().ok_or("it is not encrypted")?;
    println!("the data is encrypted with the key {key}");
    host.shutdown().await;
    Ok(())
}
