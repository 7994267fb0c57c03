//! What a run needs of a connector: two traits, so that runs don't know that there is a sandbox. The sandboxed component is the one
//! implementation that a host loads by itself.

use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value as Json;
use tidewaiter_core::run::{ConnectorError, ErrorKind, Failure};
use tidewaiter_core::schema::{Classes, ConnectorInfo, ObjectClassInfo};
use tidewaiter_core::token::SyncToken;

use crate::wasm::{self, SettingsProblem, SettingsSchema, Setup, SyncOptions};

/// A call under way. Dropped, it is abandoned.
pub type Calling<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A connector that can be started for a run.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// What it says of itself.
    fn info(&self) -> &ConnectorInfo;
    /// The hash of its file, in hexadecimal; empty where there is none.
    fn sha256(&self) -> &str {
        ""
    }
    /// The limits of each of its instances that are not configured, by name; none where there is no sandbox.
    fn sandbox(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// The size of its file; none where there is no sandbox.
    fn component_bytes(&self) -> Option<u64> {
        None
    }
    /// `migrate-settings`; those that don't say otherwise have one version of them.
    fn migrate_settings<'a>(&'a self, _from: u32, _settings: &'a str) -> Calling<'a, String> {
        let (kind, message) = (ErrorKind::Unsupported, "it migrates no settings".to_owned());
        let failure = Failure::Connector(ConnectorError { kind, message, retry_after_ms: None });
        Box::pin(async { Err(failure) })
    }
    /// Whether it works with these settings.
    ///
    /// # Errors
    /// What is wrong with them.
    fn check_settings(&self, settings: &Json) -> Result<(), Vec<SettingsProblem>> {
        let of_schema = |what| vec![SettingsProblem { at: String::new(), what }];
        SettingsSchema::new(&self.info().settings_schema).map_err(of_schema)?.check(settings)
    }
    /// Starts an instance. Whatever it hands over goes where the setup says.
    fn start(&self, setup: Setup) -> Calling<'_, Box<dyn Session>>;
}

/// An instance that lives for one run. The calls are those of the contract, see `wit/exports.wit`.
pub trait Session: Send {
    /// The classes that deltas are inspected against from now on.
    fn set_classes(&mut self, classes: Arc<Classes>);
    /// `object-classes`.
    fn object_classes(&mut self) -> Calling<'_, Vec<ObjectClassInfo>>;
    /// `check`.
    fn check(&mut self) -> Calling<'_, ()>;
    /// `get-latest-sync-token`.
    fn latest<'a>(&'a mut self, class: &'a str) -> Calling<'a, Option<SyncToken>>;
    /// `sync`.
    fn sync<'a>(
        &'a mut self,
        class: &'a str,
        token: Option<SyncToken>,
        options: SyncOptions,
    ) -> Calling<'a, Option<SyncToken>>;
    /// `search`, of all objects or the one with a uid; those that don't say otherwise can't.
    fn search<'a>(
        &'a mut self,
        _class: &'a str,
        _uid: Option<&'a str>,
        _page: Option<Vec<u8>>,
        _options: SyncOptions,
    ) -> Calling<'a, Option<Vec<u8>>> {
        let (kind, message) = (ErrorKind::Unsupported, "it reads no objects".to_owned());
        let failure = Failure::Connector(ConnectorError { kind, message, retry_after_ms: None });
        Box::pin(async { Err(failure) })
    }
    /// Whether the connector was answered `stop`.
    fn was_stopped(&self) -> bool;
}

impl Source for wasm::Connector {
    fn info(&self) -> &ConnectorInfo {
        wasm::Connector::info(self)
    }

    fn sandbox(&self) -> Vec<(&'static str, u64)> {
        wasm::Connector::sandbox(self)
    }

    fn sha256(&self) -> &str {
        wasm::Connector::sha256(self)
    }

    fn component_bytes(&self) -> Option<u64> {
        Some(wasm::Connector::component_bytes(self))
    }

    fn migrate_settings<'a>(&'a self, from: u32, settings: &'a str) -> Calling<'a, String> {
        Box::pin(wasm::Connector::migrate_settings(self, from, settings))
    }

    fn check_settings(&self, settings: &Json) -> Result<(), Vec<SettingsProblem>> {
        wasm::Connector::check_settings(self, settings)
    }

    fn start(&self, setup: Setup) -> Calling<'_, Box<dyn Session>> {
        Box::pin(async move { Ok(Box::new(wasm::Session::start(self, setup).await?) as Box<dyn Session>) })
    }
}

impl Session for wasm::Session {
    fn set_classes(&mut self, classes: Arc<Classes>) {
        wasm::Session::set_classes(self, classes);
    }

    fn object_classes(&mut self) -> Calling<'_, Vec<ObjectClassInfo>> {
        Box::pin(wasm::Session::object_classes(self))
    }

    fn check(&mut self) -> Calling<'_, ()> {
        Box::pin(wasm::Session::check(self))
    }

    fn latest<'a>(&'a mut self, class: &'a str) -> Calling<'a, Option<SyncToken>> {
        Box::pin(wasm::Session::latest(self, class))
    }

    fn sync<'a>(
        &'a mut self,
        class: &'a str,
        token: Option<SyncToken>,
        options: SyncOptions,
    ) -> Calling<'a, Option<SyncToken>> {
        Box::pin(wasm::Session::sync(self, class, token, options))
    }

    fn search<'a>(
        &'a mut self,
        class: &'a str,
        uid: Option<&'a str>,
        page: Option<Vec<u8>>,
        options: SyncOptions,
    ) -> Calling<'a, Option<Vec<u8>>> {
        Box::pin(wasm::Session::search(self, class, uid, page, options))
    }

    fn was_stopped(&self) -> bool {
        wasm::Session::was_stopped(self)
    }
}
