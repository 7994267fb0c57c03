//! From a name to addresses. Vets nothing: whoever asks does.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

/// Addresses, on their way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names for every connection made on behalf of a connector. Embedders and tests may bring their own.
pub trait Resolve: Debug + Send + Sync + 'static {
    /// All addresses of a name. May not answer for addresses themselves: those are never asked for.
    fn resolve(&self, name: &str) -> Resolving;
}

/// What this machine's own programs would get: its files, its name servers, its search list.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> Resolving {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}
