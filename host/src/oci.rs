//! Connectors from OCI registries, in the layout that the CNCF gave WebAssembly: a manifest with one layer of `application/wasm`. What comes is what its
//! digests say, over TLS unless the registry is on this machine; whether it is trusted is not decided here.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use futures_util::TryStreamExt;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{ImageIndexEntry, OciDescriptor};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use tidewaiter_core::text::{shown, with_causes};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::egress::certificates;
use crate::files;
use crate::trust::{STATEMENT_BYTES_MAX, Signed};
use crate::wasm::COMPONENT_BYTES_MAX;

/// The media type of the layer that is a component (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
const WASM: &str = "application/wasm";
/// The annotation with the name that a layer has as a file (OCI image specification).
const TITLE: &str = "org.opencontainers.image.title";
/// How long nothing may come.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long it may take.
const TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// How long its manifest may take.
const MANIFEST_TIME_MAX: Duration = Duration::from_secs(60);
/// What the process may take for it beside what it has, in bytes: the client reads answers whole.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// How often that is looked at.
const MEMORY_LOOK: Duration = Duration::from_millis(20);
/// More of what a registry says isn't shown.
const PROBLEM_BYTES_MAX: usize = 500;
/// The largest configuration of Docker, in bytes.
const CONFIGURATION_BYTES_MAX: u64 = 1024 * 1024;
/// What the helpers of Docker print that have no login of a registry.
const NOT_IN_STORE: &str = "credentials not found";
/// A proxy that nothing goes through.
const NOWHERE: &str = "http://127.0.0.1:0";
/// What is reached past it.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";
/// How Docker's configuration calls its own registry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// An artifact, by its tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    reference: Reference,
    /// TLS, although the registry is on this machine.
    says_https: bool,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (registry, path) = rest.split_once('/').unwrap_or(("", rest));
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err("it begins with its registry, as in ghcr.io/acme/csv:1.2.0".to_owned());
        }
        if !path.contains([':', '@']) {
            return Err(
                "it ends with a tag or a digest, as in ghcr.io/acme/csv:1.2.0 or ghcr.io/acme/csv@sha256:…".to_owned()
            );
        }
        match scheme {
            "" | "https" => {}
            "http" if is_here(registry) => {}
            "http" => return Err("only a registry on this machine is spoken to in clear".to_owned()),
            other => return Err(format!("it begins with {other}://, which is none of http:// and https://")),
        }
        let reference = rest.parse::<Reference>().map_err(|error| error.to_string())?;
        Ok(Self { reference, says_https: scheme == "https" })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.says_https { "https://" } else { "" };
        write!(f, "{scheme}{}", self.reference)
    }
}

/// Whether a registry is on this machine.
fn is_here(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An artifact that isn't pulled.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct NotPulled {
    place: String,
    problem: String,
}

/// A connector as it came.
pub(crate) struct Artifact {
    pub(crate) bytes: Vec<u8>,
    /// Its statement and the signature of that, where those are layers, too.
    pub(crate) signed: Option<Signed>,
    /// Of its manifest.
    pub(crate) digest: String,
}

impl Place {
    /// The same artifact, whatever its tag is by then.
    pub(crate) fn at(&self, digest: &str) -> Self {
        let (registry, repository) = (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        let digest = digest.to_owned();
        let reference = match self.reference.tag() {
            Some(tag) => Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest),
            None => Reference::with_digest(registry, repository, digest),
        };
        Self { reference, ..*self }
    }

    /// Without its digest.
    pub(crate) fn named(&self) -> String {
        let whole = self.to_string();
        whole.split_once('@').map_or(whole.clone(), |(name, _)| name.to_owned())
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> &str {
        self.reference.repository().rsplit('/').next().unwrap_or_default()
    }

    fn not(&self, problem: &str) -> NotPulled {
        NotPulled { place: self.to_string(), problem: shown(problem, PROBLEM_BYTES_MAX) }
    }

    fn failed(&self, error: &OciDistributionError) -> NotPulled {
        self.not(&with_causes(error))
    }

    /// Pulls it. `progress` is told how many of how many bytes came.
    ///
    /// # Errors
    /// It isn't there, or isn't what it should be; or the registry can't be reached or doesn't let us.
    pub(crate) async fn pull(
        &self,
        trust: Vec<PathBuf>,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<Artifact, NotPulled> {
        let this = self.clone();
        // What a registry says may be more than the client of them can work with: that ends its task.
        let mut pulling = JoinSet::from_iter([async move { this.pull_patiently(&trust, &progress).await }]);
        tokio::select! {
            Some(pulled) = pulling.join_next() => pulled.unwrap_or_else(|error| Err(self.not(&format!("it can't be worked with: {error}")))),
            () = tokio::time::sleep(TIME_MAX) => Err(self.not(&format!("it takes longer than {} s", TIME_MAX.as_secs()))),
            () = too_much() => Err(self.not(&format!("it takes more than {MEMORY_MAX} bytes of memory"))),
        }
    }

    async fn pull_patiently(&self, trust: &[PathBuf], progress: &impl Fn(u64, u64)) -> Result<Artifact, NotPulled> {
        let (client, login) = (self.client(trust)?, self.login().await?);
        let failed = |error: OciDistributionError| self.failed(&error);
        let manifest = async {
            client.auth(&self.reference, &login, RegistryOperation::Pull).await?;
            client.pull_image_manifest(&self.reference, &login).await
        };
        let late = |_| self.not(&format!("its manifest takes longer than {} s", MANIFEST_TIME_MAX.as_secs()));
        let (manifest, digest) = timeout(MANIFEST_TIME_MAX, manifest).await.map_err(late)?.map_err(failed)?;
        let components: Vec<&OciDescriptor> = manifest.layers.iter().filter(|layer| layer.media_type == WASM).collect();
        let [component] = components[..] else {
            let types: Vec<&str> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
            let (count, types) = (components.len(), types.join(", "));
            return Err(self.not(&format!("it has {count} layers of {WASM}, and a connector is one; it has: {types}")));
        };
        let bytes = self.blob(&client, component, COMPONENT_BYTES_MAX as u64, progress).await?;
        let titled = |end: &str| {
            let has_title = |layer: &&OciDescriptor| {
                layer.annotations.as_ref().and_then(|all| all.get(TITLE)).is_some_and(|title| title.ends_with(end))
            };
            manifest.layers.iter().find(has_title)
        };
        let signed = match (titled(".statement"), titled(".statement.minisig")) {
            (Some(statement), Some(signature)) => Some(Signed {
                statement: self.text(&client, statement).await?,
                signature: self.text(&client, signature).await?,
            }),
            _ => None,
        };
        Ok(Artifact { bytes, signed, digest })
    }

    async fn text(&self, client: &Client, layer: &OciDescriptor) -> Result<String, NotPulled> {
        let bytes = self.blob(client, layer, STATEMENT_BYTES_MAX, &|_, _| {}).await?;
        String::from_utf8(bytes).map_err(|_| self.not("its statement is no text"))
    }

    async fn blob(
        &self,
        client: &Client,
        layer: &OciDescriptor,
        bytes_max: u64,
        progress: &impl Fn(u64, u64),
    ) -> Result<Vec<u8>, NotPulled> {
        // From nowhere but the registry.
        let layer = OciDescriptor { urls: None, ..layer.clone() };
        let too_large = || self.not(&format!("{} has more than the {bytes_max} bytes allowed", layer.media_type));
        let size = u64::try_from(layer.size).unwrap_or_default();
        if size > bytes_max {
            return Err(too_large());
        }
        let mut parts = client.pull_blob_stream(&self.reference, &layer).await.map_err(|error| self.failed(&error))?;
        let mut bytes = Vec::new();
        while let Some(part) = parts.stream.try_next().await.map_err(|error| self.not(&with_causes(&error)))? {
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > bytes_max {
                return Err(too_large());
            }
            progress(bytes.len() as u64, size);
        }
        Ok(bytes)
    }

    /// Nothing goes in clear but to this machine, wherever a registry sends us.
    fn client(&self, trust: &[PathBuf]) -> Result<Client, NotPulled> {
        // There is one already, or this is the one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = rustls_native_certs::load_native_certs().certs;
        for file in trust {
            roots.extend(certificates(file).map_err(|error| self.not(&error.to_string()))?);
        }
        let root = |der: &rustls::pki_types::CertificateDer<'_>| Certificate {
            encoding: CertificateEncoding::Der,
            data: der.to_vec(),
        };
        let is_plain = is_here(self.reference.registry()) && !self.says_https;
        let config = ClientConfig {
            protocol: if is_plain { ClientProtocol::Http } else { ClientProtocol::Https },
            tls_certs_only: roots.iter().map(root).collect(),
            platform_resolver: Some(Box::new(of_wasm)),
            read_timeout: Some(SILENCE_MAX),
            connect_timeout: Some(SILENCE_MAX),
            user_agent: concat!("tidewaiter/", env!("CARGO_PKG_VERSION")),
            http_proxy: Some(NOWHERE.to_owned()),
            https_proxy: proxy(self.reference.registry()),
            no_proxy: is_plain.then(|| THIS_MACHINE.to_owned()),
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| self.failed(&error))
    }

    /// What Docker's configuration has for the registry.
    async fn login(&self) -> Result<RegistryAuth, NotPulled> {
        let registry = match self.reference.registry() {
            registry if registry == DOCKER_HUB.0 => DOCKER_HUB.1.to_owned(),
            registry => registry.to_owned(),
        };
        let folder = environment(["DOCKER_CONFIG"]).map(PathBuf::from);
        let of_home = || environment(["HOME"]).map(|home| Path::new(&home).join(".docker"));
        let Some(file) = folder.or_else(of_home).map(|folder| folder.join("config.json")) else {
            return Ok(RegistryAuth::Anonymous);
        };
        let named = |problem: &dyn fmt::Display| self.not(&format!("{}: {problem}", file.display()));
        let configuration = match files::text(&file, CONFIGURATION_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
            read => read.map_err(|error| named(&error))?,
        };
        let found = spawn_blocking(move || get_credential_from_reader(configuration.as_bytes(), &registry)).await;
        match found.map_err(|error| named(&error))? {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
            Ok(DockerCredential::IdentityToken(_)) => {
                Err(named(&"it has an identity token for the registry; a user and a password are needed"))
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
            Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains(NOT_IN_STORE) => {
                Ok(RegistryAuth::Anonymous)
            }
            // What it printed may be a password.
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                Err(named(&format!("docker-credential-{helper} failed")))
            }
            Err(error) => Err(named(&error)),
        }
    }
}

/// Returns once the process has taken more than it may.
async fn too_much() {
    let before = resident();
    let mut looks = tokio::time::interval(MEMORY_LOOK);
    while resident().saturating_sub(before) < MEMORY_MAX {
        looks.tick().await;
    }
}

/// The memory that the process has, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}

/// The one for WebAssembly, of those for several platforms.
fn of_wasm(entries: &[ImageIndexEntry]) -> Option<String> {
    let is_wasm = |entry: &&ImageIndexEntry| {
        entry.platform.as_ref().is_some_and(|platform| platform.architecture.to_string() == "wasm")
    };
    entries.iter().find(is_wasm).map(|entry| entry.digest.clone())
}

/// The proxy to a registry, as the environment says it to programs.
fn proxy(registry: &str) -> Option<String> {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let not = environment(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let mut not = not.split(',').map(|entry| entry.trim().trim_start_matches("*.").trim_start_matches('.'));
    let is_past = not.any(|entry| {
        entry == "*"
            || host
                .strip_suffix(entry)
                .is_some_and(|before| before.is_empty() || (!entry.is_empty() && before.ends_with('.')))
    });
    environment(["HTTPS_PROXY", "https_proxy"]).filter(|_| !is_past)
}

#[expect(clippy::disallowed_methods, reason = "how clients of registries are told of proxies and logins")]
fn environment<const N: usize>(names: [&str; N]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_registry_and_a_tag_or_digest_and_is_reached_over_tls() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let place = |text: &str| text.parse::<Place>();
        let by_tag = place("ghcr.io/acme/csv:1.2.0").unwrap();
        assert_eq!((by_tag.name(), by_tag.to_string().as_str()), ("csv", "ghcr.io/acme/csv:1.2.0"));
        let by_both = by_tag.at(&digest);
        assert_eq!(by_both.to_string().parse::<Place>().unwrap(), by_both);
        assert_eq!((by_both.named().as_str(), by_both.name()), ("ghcr.io/acme/csv:1.2.0", "csv"));
        for (text, problem) in [
            ("csv:1", "begins with its registry"),
            ("acme/csv:1", "begins with its registry"),
            ("ghcr.io/acme/csv", "ends with a tag"),
            ("http://ghcr.io/acme/csv:1", "in clear"),
            ("http://127.0.0.1.example.com/csv:1", "in clear"),
            ("ftp://ghcr.io/acme/csv:1", "none of http"),
            ("ghcr.io/acme/csv@sha256:1", ""),
            ("ghcr.io/Acme/csv:1", ""),
        ] {
            let told = place(text).unwrap_err();
            assert!(told.contains(problem) && !told.is_empty(), "{text}: {told}");
        }
        for text in ["localhost:5000/csv:1", "127.0.0.1:5000/a/csv:1", "http://localhost/csv:1"] {
            assert!(is_here(place(text).unwrap().reference.registry()), "{text}");
        }
        assert_eq!(place("https://localhost:5000/csv:1").unwrap().to_string(), "https://localhost:5000/csv:1");
    }
}
