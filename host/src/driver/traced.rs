//! A session whose calls are spans of its run's trace.

use std::sync::Arc;

use tidewaiter_core::schema::{Classes, ObjectClassInfo};
use tidewaiter_core::token::SyncToken;

use super::session::{Calling, Session};
use crate::trace::RunTrace;
use crate::wasm::SyncOptions;

pub(super) struct Traced {
    pub(super) session: Box<dyn Session>,
    pub(super) trace: RunTrace,
}

impl Session for Traced {
    fn set_classes(&mut self, classes: Arc<Classes>) {
        self.session.set_classes(classes);
    }

    fn object_classes(&mut self) -> Calling<'_, Vec<ObjectClassInfo>> {
        Box::pin(self.trace.part("object-classes", self.session.object_classes()))
    }

    fn check(&mut self) -> Calling<'_, ()> {
        Box::pin(self.trace.part("check", self.session.check()))
    }

    fn latest<'a>(&'a mut self, class: &'a str) -> Calling<'a, Option<SyncToken>> {
        Box::pin(self.trace.part("get-latest-sync-token", self.session.latest(class)))
    }

    fn sync<'a>(
        &'a mut self,
        class: &'a str,
        token: Option<SyncToken>,
        options: SyncOptions,
    ) -> Calling<'a, Option<SyncToken>> {
        Box::pin(self.trace.part("sync", self.session.sync(class, token, options)))
    }

    fn search<'a>(
        &'a mut self,
        class: &'a str,
        uid: Option<&'a str>,
        page: Option<Vec<u8>>,
        options: SyncOptions,
    ) -> Calling<'a, Option<Vec<u8>>> {
        Box::pin(self.trace.part("search", self.session.search(class, uid, page, options)))
    }

    fn was_stopped(&self) -> bool {
        self.session.was_stopped()
    }
}
