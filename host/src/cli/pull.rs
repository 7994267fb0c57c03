//! `tidewaiter connectors pull`: a connector from a registry into the folder of connectors, and into the lock where from.

use std::fs;
use std::io;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tidewaiter_core::name::ConnectorName;

use super::connectors::engine;
use super::door::Site;
use super::fail::{Exit, Fail};
use super::print;
use crate::config::Config;
use crate::files;
use crate::host::ask::{Answer, Ask, ProblemCode};
use crate::host::{Bytes, Runs, beside};
use crate::oci::{Artifact, Place};
use crate::trust::{Distrust, Lock, Origin, Pulled};
use crate::wasm::Connector;

/// What was put into the folder.
#[derive(Serialize)]
struct Put {
    connector: ConnectorName,
    #[serde(flatten)]
    pulled: Pulled,
}

/// Pulls an artifact, has its digest in the lock, and trusts it as far as pinning goes.
pub(super) async fn pull(
    site: &Site,
    place: &Place,
    name: Option<ConnectorName>,
    downgrade: bool,
    json: bool,
) -> Result<(), Fail> {
    let config = site.host()?;
    let unnamed = |error| Fail::new(Exit::Usage, format!("{place}: {error}; --name says how the connector is called"));
    let connector = name.map_or_else(|| place.name().parse().map_err(unnamed), Ok)?;
    let (file, digest) = fetched(&config, place).await?;
    let pulled = Pulled { from: place.named(), digest, sha256: file.sha256.clone() };
    match judged(&config, &connector, &file) {
        // That is what is decided next.
        Ok(()) | Err(Distrust::NotPinned { .. } | Distrust::Earlier { .. }) => {}
        Err(distrust) => return Err(Fail::new(Exit::Refused, format!("{place}: {distrust}"))),
    }
    let engine = engine(Some(config.compiled()))?;
    let loaded = Connector::load(&engine, &connector, &file.bytes).await;
    let loaded = loaded.map_err(|error| Fail::new(Exit::Refused, format!("{place}: {error}")))?;
    let version = loaded.info().version.clone();
    let expect = Ask::Expect { connector: connector.clone(), version, pulled: pulled.clone(), downgrade };
    let Answer::Lock(_) = super::ask(site, Runs::Never, expect).await? else { return Err(Fail::other_answer()) };
    // It is trusted before it is there, so that whoever watches the folder sees nothing that isn't.
    put(&config, &connector, &file).map_err(|fail| {
        Fail::new(Exit::Host, format!("{fail}; the lock has it already: `connectors pull --locked` goes on"))
    })?;
    if let Some(mut server) = site.server().await? {
        // Whoever pulls it wants it run, also where connections went back from it.
        let not_run = |why: &str| Fail::new(Exit::Refused, format!("it is in the folder, and not run: {why}"));
        let tried = server.ask(&Ask::TryAgain { connector: connector.clone(), downgrade }).await;
        let rows = match tried {
            Ok(Answer::Revisions(rows)) => rows,
            Ok(_) => return Err(Fail::other_answer()),
            // No connection has it.
            Err(problem) if problem.code == ProblemCode::Unknown => Vec::new(),
            Err(problem) => return Err(not_run(&problem.message)),
        };
        let refused = rows.iter().filter(|row| row.revision.sha256 == pulled.sha256).flat_map(|row| &row.refused);
        if let Some((connection, why)) = refused.into_iter().next() {
            return Err(not_run(&format!("connection {connection}: {why}")));
        }
    }
    print::out(json, &[Put { connector, pulled }], |put| told(put))
}

/// Pulls what the lock says, where the folder has something else.
pub(super) async fn pull_locked(site: &Site, json: bool) -> Result<(), Fail> {
    let config = site.host()?;
    let path = &config.connector_trust.lock;
    if !path.exists() {
        return Err(Fail::new(Exit::Usage, format!("{} is not there", path.display())));
    }
    let lock = Lock::read(path).map_err(|error| Fail::new(Exit::Usage, error))?;
    let mut put = Vec::new();
    for (connector, pulled) in lock.pulled {
        if Bytes::read(&config.connector(&connector)).is_ok_and(|there| there.sha256 == pulled.sha256) {
            continue;
        }
        let of_lock =
            |problem: String| Fail::new(Exit::Usage, format!("{}: pulled.{connector}: {problem}", path.display()));
        let place = pulled.from.parse::<Place>().or_else(|_| format!("{}@{}", pulled.from, pulled.digest).parse());
        let place = place.map_err(of_lock)?.at(&pulled.digest);
        let (file, _) = fetched(&config, &place).await?;
        if file.sha256 != pulled.sha256 {
            let problem = format!("the file in {place} has the hash {}", file.sha256);
            return Err(Fail::new(Exit::Refused, of_lock(problem)));
        }
        judged(&config, &connector, &file).map_err(|distrust| Fail::new(Exit::Refused, distrust))?;
        self::put(&config, &connector, &file)?;
        put.push(Put { connector, pulled });
    }
    print::out(json, &put, |put| told(put))
}

fn told(put: &[Put]) -> String {
    let line = |Put { connector, pulled: Pulled { from, digest, sha256 } }: &Put| {
        format!("{connector} {sha256} from {from} {digest}\n")
    };
    match put {
        [] => "the folder has what the lock says\n".to_owned(),
        put => put.iter().map(line).collect(),
    }
}

async fn fetched(config: &Config, place: &Place) -> Result<(Bytes, String), Fail> {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {elapsed}") {
        bar.set_style(style);
    }
    let shown = bar.clone();
    let progress = move |came, of| {
        shown.set_length(of);
        shown.set_position(came);
    };
    let pulled = Box::pin(place.pull(config.trust.clone(), progress)).await;
    bar.finish_and_clear();
    let Artifact { bytes, signed, digest } = pulled.map_err(|error| Fail::new(Exit::RunFailed, error))?;
    Ok((Bytes::of(bytes, signed), digest))
}

fn judged(config: &Config, connector: &ConnectorName, file: &Bytes) -> Result<(), Distrust> {
    let trust = &config.connector_trust;
    trust.judge(connector, &file.sha256, file.signed.as_ref(), Origin::Folder).map(drop)
}

/// Puts it into the folder, and before it the statement of it.
fn put(config: &Config, connector: &ConnectorName, file: &Bytes) -> Result<(), Fail> {
    let at = |path: &Path, error: &io::Error| Fail::new(Exit::Host, format!("{}: {error}", path.display()));
    fs::create_dir_all(&config.connectors).map_err(|error| at(&config.connectors, &error))?;
    let put = |path: &Path, bytes: &[u8]| files::put(path, bytes, 0o644).map_err(|error| at(path, &error));
    let path = config.connector(connector);
    if let Some(signed) = &file.signed {
        let [statement, signature] = beside(&path);
        put(&statement, signed.statement.as_bytes())?;
        put(&signature, signed.signature.as_bytes())?;
    }
    put(&path, &file.bytes)
}
