//! Reading objects as they are now, page by page, and journaling all that was read. Live sync has its turn between pages. Compares
//! nothing: what is journaled may say what was said before, and is marked.

use serde::{Deserialize, Serialize};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::run::{Failure, Filter, Outcome, Reading, RunReport};
use tidewaiter_core::schedule::Refusal;
use tidewaiter_core::schema::{ALL_CLASSES, Operation};
use tidewaiter_core::state::Actor;
use tokio::sync::{mpsc, oneshot};

use super::{Host, HostError};
use crate::driver::{Performed, Request};

/// More pages without an object than that, one after the other, lead nowhere.
const EMPTY_PAGES_MAX: u32 = 100;

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Scope {
    /// The one object with this uid; none: all of the type's class.
    pub uid: Option<String>,
    /// If that one isn't there, it is journaled as deleted.
    pub gone: bool,
    /// Reads and counts, and journals nothing.
    pub dry_run: bool,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reconciled {
    /// Pages that were read to their end.
    pub pages: u64,
    /// Objects journaled; in a dry run, those that would be.
    pub objects: u64,
    /// The run that read the last page, which tells how it ended.
    pub last: RunReport,
}

impl Host {
    /// Reads objects of a type again and journals each, so that consumers that lost something have it. What was read before something failed stays journaled.
    ///
    /// # Errors
    /// Unknown type, a connector that can't read objects, or the host shuts down. That reading failed is in the report.
    pub async fn reconcile(&self, key: &TypeKey, scope: Scope, by: Actor) -> Result<Reconciled, HostError> {
        self.can_read(key, &scope)?;
        let (audit, requests, key) = (self.audit.clone(), self.requests.clone(), key.clone());
        self.act(async move {
            audit.act(&by, "reconcile", key.to_string()).await?;
            Ok(read(&requests, &key, scope).await?)
        })
        .await
    }

    /// Whether a connector does what is wanted of it.
    fn can_read(&self, key: &TypeKey, scope: &Scope) -> Result<(), HostError> {
        self.can_run(&key.connection)?;
        let class = &self.type_config(key)?.class;
        let operation = if scope.uid.is_some() { Operation::SearchByUid } else { Operation::Search };
        let connection = self.connections.get(&key.connection);
        let connection = connection.ok_or_else(|| HostError::UnknownConnection(key.connection.clone()))?;
        let connector = connection.connector.info();
        let what = match () {
            () if class == ALL_CLASSES => "all classes are read one by one: add a type for each".to_owned(),
            () if !connector.does(operation) && scope.uid.is_some() => {
                format!("connector {} can't read one object by its uid", connector.name)
            }
            () if !connector.does(operation) => format!("connector {} can't read all objects", connector.name),
            () => return Ok(()),
        };
        Err(HostError::CannotRead { key: key.clone(), what })
    }
}

/// Each page is a run of its own, and each of an instance of its own.
async fn read(requests: &mpsc::Sender<Request>, key: &TypeKey, scope: Scope) -> Result<Reconciled, Refusal> {
    let Scope { uid, gone, dry_run } = scope;
    let filter = uid.map_or(Filter::All, |uid| Filter::ByUid { uid, gone });
    let (mut page, mut pages, mut objects, mut empty): (Option<Vec<u8>>, _, _, _) = (None, 0, 0, 0);
    loop {
        let reading = Reading { filter: filter.clone(), page: page.clone(), dry_run };
        let (answer, performed) = oneshot::channel();
        let asked = requests.send(Request::Read { key: key.clone(), reading, answer }).await;
        asked.map_err(|_| Refusal::ShuttingDown)?;
        let Performed { report: mut last, next, .. } = performed.await.map_err(|_| Refusal::ShuttingDown)??;
        match last.outcome {
            // An operator's act on the token changes nothing about what is read.
            Outcome::Superseded => continue,
            Outcome::Ok => {}
            _ => return Ok(Reconciled { pages, objects, last }),
        }
        let read = if dry_run { last.dropped } else { last.deltas };
        (pages, objects) = (pages + 1, objects + read);
        empty = if read > 0 { 0 } else { empty + 1 };
        if next.is_none() {
            return Ok(Reconciled { pages, objects, last });
        }
        if let Some(failure) = endless(next == page, empty) {
            last.outcome = Outcome::Failed(failure);
            return Ok(Reconciled { pages, objects, last });
        }
        page = next;
    }
}

/// Why a pass would never end, if it wouldn't.
fn endless(stays: bool, empty: u32) -> Option<Failure> {
    let message = match () {
        () if stays => "search answered the position that it was called with".to_owned(),
        () if empty > EMPTY_PAGES_MAX => format!("search answered {empty} pages in a row without an object"),
        () => return None,
    };
    Some(Failure::Contract { code: "search-has-no-end".into(), message, uid: None })
}
