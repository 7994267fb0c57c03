//! The journal: by page, by long poll, and as a stream.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tidewaiter_core::access::Role;
use tidewaiter_core::journal::{Entry, EntryId};
use tidewaiter_core::name::{ConnectionName, TypeName};
use tidewaiter_core::time::UnixMillis;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::{Answer, Page, Served, Wait, rows};
use crate::api::App;
use crate::api::admit::refused;
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{Path, Principal, Query};
use crate::api::feed::{Listener, Wanted, event};
use crate::audit::Event;
use crate::host::ask::After;
use crate::host::{Host, HostError};
use crate::sink::render;

/// How often a listener is told that nothing came, and looked at whether it may listen still.
const QUIET: Duration = Duration::from_secs(10);
/// Entries that are looked through in vain for one request, before it goes on with the next.
const SEARCHED_MAX: usize = 20_000;
/// So many of them at once, however few are wanted.
const SEARCHED_AT_ONCE: usize = 500;

/// A journal entry. Sensitive values are `***`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Change {
    /// The same entry has it always.
    id: String,
    /// Its place in the journal.
    sequence: u64,
    connection: ConnectionName,
    r#type: TypeName,
    /// Counts operators' acts on the sync token of the type.
    generation: u64,
    /// The run that brought it; null for an operator's act.
    run: Option<u64>,
    /// When it was journaled.
    at: UnixMillis,
    /// `create`, `update`, `create-or-update` or `delete`; or what an operator did, as in `token-reset`; or `erased`.
    kind: String,
    /// The connector's class.
    #[schema(required = false, nullable = false)]
    class: Option<String>,
    #[schema(required = false, nullable = false)]
    uid: Option<String>,
    #[schema(required = false, nullable = false)]
    name: Option<String>,
    #[schema(required = false, nullable = false)]
    previous_uid: Option<String>,
    /// When it happened, in the source's words.
    #[schema(required = false, nullable = false)]
    source_time: Option<String>,
    /// It was read on purpose, and not because it changed.
    #[schema(required = false, nullable = false)]
    read: Option<bool>,
    /// By name, all values of each.
    #[schema(required = false, nullable = false)]
    attributes: Option<Map<String, Json>>,
    /// Attributes that don't give all values.
    #[schema(required = false, nullable = false, value_type = Option<Vec<Object>>)]
    partial: Option<Vec<Json>>,
    /// Who did it, if it is an operator's act.
    #[schema(required = false, nullable = false)]
    by: Option<String>,
    /// When it was erased.
    #[schema(required = false, nullable = false)]
    erased_at: Option<String>,
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Those after this one, by id or sequence; left out: from the first that is kept. For a stream: from now on.
    #[param(value_type = Option<String>)]
    after: Option<After>,
    /// Of this connection.
    connection: Option<ConnectionName>,
    /// Of this object type.
    r#type: Option<TypeName>,
    /// Of this kind, as in `create`.
    kind: Option<String>,
    /// Of the object with this uid.
    uid: Option<String>,
    /// With what is sensitive, which is for the roles `security` and `admin`.
    #[serde(default)]
    sensitive: bool,
    /// At most that many, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Wait so long for one if there is none, as in `30s`; at most `60s`.
    #[param(value_type = Option<String>)]
    wait: Option<Wait>,
}

impl Of {
    fn wanted(&self) -> Wanted {
        let Self { connection, r#type, kind, uid, .. } = self;
        Wanted { connection: connection.clone(), object_type: r#type.clone(), kind: kind.clone(), uid: uid.clone() }
    }
}

/// Changes, oldest first
///
/// A page may have fewer than `limit`, or none, though there are more: `next` is where to go on, always.
#[utoipa::path(get, path = "/changes", tag = "changes", security(("bearer" = ["read"])),
    params(Of), responses((status = 200, body = Page<Change>), Problems))]
pub(super) async fn list(State(app): Served, Query(of): Query<Of>, who: Principal) -> Answer<Page<Json>> {
    may_see(&app, &who, of.sensitive)?;
    let asked = Asked {
        after: of.after.unwrap_or(After::Sequence(0)),
        wanted: of.wanted(),
        sensitive: of.sensitive,
        limit: rows(of.limit)?,
        wait: of.wait.unwrap_or_default().0,
    };
    page(&app, asked, &who).await
}

/// Entries that somebody asks for.
pub(super) struct Asked {
    pub(super) after: After,
    pub(super) wanted: Wanted,
    pub(super) sensitive: bool,
    pub(super) limit: usize,
    pub(super) wait: Duration,
}

pub(super) fn may_see(app: &App, who: &Principal, sensitive: bool) -> Result<(), ApiError> {
    if !sensitive || who.role.allows(Role::Security) {
        return Ok(());
    }
    let message = "what is sensitive is for the roles security and admin".to_owned();
    Err(refused(app, who, "what is sensitive".to_owned(), message)?)
}

/// Some entries, once there are some; what was looked through without finding any is skipped in `next`.
pub(super) async fn page(app: &Arc<App>, asked: Asked, who: &Principal) -> Answer<Page<Json>> {
    let Asked { after, wanted, sensitive, limit, wait } = asked;
    let host = &app.host;
    let until = app.clock.moment() + wait;
    let (mut items, mut next, mut searched) = (Vec::new(), after, 0);
    let at_once = if wanted.is_all() { limit } else { limit.max(SEARCHED_AT_ONCE) };
    let _place = (!wait.is_zero()).then(|| app.places.take(&who.name)).transpose()?;
    while items.is_empty() && searched < SEARCHED_MAX {
        let entries = host.changes(next, at_once, app.clock.until(until)).await?;
        // Whoever waited may be nobody any more.
        if !host.access().is_current(who) {
            return Err(ApiError::unauthorized("the access token was revoked, or has expired"));
        }
        if entries.is_empty() {
            break;
        }
        searched += entries.len();
        let hidden = host.db().sensitive().map_err(HostError::from)?;
        for entry in &entries {
            if items.len() == limit {
                break;
            }
            next = After::Id(entry.id);
            let masked = render::masked(entry, &hidden);
            if wanted.has(entry, &masked) {
                items.push(if sensitive { render::entry(entry) } else { masked });
            }
        }
    }
    if let (Some(first), Some(last)) = (items.first(), items.last()) {
        note(host, who, [first, last].map(entry_id), sensitive)?;
    }
    Ok(axum::Json(Page { items, next: Some(next.to_string()) }))
}

/// Writes down that somebody was shown entries: the first and the last of them.
pub(in crate::api) fn note(
    host: &Host,
    who: &Principal,
    entries: [String; 2],
    sensitive: bool,
) -> Result<(), ApiError> {
    let read = Event::Read { by: who.actor().to_string(), entries, sensitive };
    Ok(host.audit().note(&read).map_err(HostError::from)?)
}

/// A change
#[utoipa::path(get, path = "/changes/{id}", tag = "changes", security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Its id, or its sequence")), responses((status = 200, body = Change), Problems))]
pub(super) async fn get(State(app): Served, Path(id): Path<String>, who: Principal) -> Answer<Json> {
    let json = one(&app, &id).await?;
    note(&app.host, &who, [&json, &json].map(entry_id), false)?;
    Ok(axum::Json(json))
}

/// The id of an entry that is rendered.
pub(in crate::api) fn entry_id(entry: &Json) -> String {
    entry["id"].as_str().unwrap_or_default().to_owned()
}

/// An entry by its id or its sequence, with what is sensitive masked.
pub(in crate::api) async fn one(app: &App, id: &str) -> Result<Json, ApiError> {
    let unknown = || ApiError::not_found(format!("there is no entry {id}"));
    let after = match id.parse::<After>().map_err(|_| unknown())? {
        After::Sequence(sequence) => After::Sequence(sequence.checked_sub(1).ok_or_else(unknown)?),
        After::Id(EntryId { incarnation, sequence }) => {
            After::Id(EntryId { incarnation, sequence: sequence.checked_sub(1).ok_or_else(unknown)? })
        }
    };
    let entries = app.host.changes(after, 1, Duration::ZERO).await?;
    let wanted = |entry: &Entry| id == entry.id.to_string() || id == entry.id.sequence.to_string();
    let entry = entries.first().filter(|entry| wanted(entry)).ok_or_else(unknown)?;
    Ok(render::masked(entry, &app.host.db().sensitive().map_err(HostError::from)?))
}

/// Changes as they are journaled
///
/// Server-sent events, each a `change` with its id; `Last-Event-ID` goes on after the last one that was received, as `after` does. Ends with a `problem` if what comes next
/// was dropped.
#[utoipa::path(get, path = "/changes/stream", tag = "changes", security(("bearer" = ["read"])),
    params(Of, ("last-event-id" = Option<String>, Header, description = "Those after this one")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Problems))]
pub(super) async fn stream(
    State(app): Served,
    Query(of): Query<Of>,
    who: Principal,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    may_see(&app, &who, of.sensitive)?;
    let last = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.parse().ok()));
    let last = match last {
        Some(None) => return Err(ApiError::bad_request("Last-Event-ID is no entry's id")),
        Some(Some(last)) => Some(last),
        None => of.after,
    };
    let there = app.host.db().last_sequence();
    let position = match last {
        Some(after) => app.host.position(after)?,
        None => there,
    };
    if position > there {
        return Err(ApiError::bad_request(format!("entry {position} is not there yet; the last one is {there}")));
    }
    let place = app.places.take(&who.name)?;
    note(&app.host, &who, [format!("after {position}"), "as they come".to_owned()], of.sensitive)?;
    let told = Told {
        listener: app.feed.listen(app.host.clone(), position),
        wanted: of.wanted(),
        sensitive: of.sensitive,
        who,
        app,
        ended: false,
        _place: place,
    };
    let events = stream::unfold(told, async |mut told| {
        told.next().await.map(|event| (Ok::<_, std::convert::Infallible>(event), told))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(QUIET)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Somebody who is told what is journaled.
struct Told {
    listener: Listener,
    wanted: Wanted,
    sensitive: bool,
    who: Principal,
    app: Arc<App>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Told {
    /// What is sent next; none: it is over.
    async fn next(&mut self) -> Option<Sent> {
        let closing = self.app.host.closing().clone();
        while !self.ended {
            let next = closing.run_until_cancelled(timeout(QUIET, self.listener.next())).await?;
            if !self.app.host.access().is_current(&self.who) {
                return None;
            }
            match next {
                Err(_) => {}
                Ok(Ok(told)) if !self.wanted.has(&told.entry, &told.json) => {}
                Ok(Ok(told)) if self.sensitive => {
                    return Some(event(&told.entry, render::entry(&told.entry).to_string()));
                }
                Ok(Ok(told)) => return Some(told.event.clone()),
                Ok(Err(error)) => {
                    self.ended = true;
                    let problem = ApiError::from(error).problem();
                    let text = serde_json::to_string(&problem).unwrap_or_default();
                    return Some(Sent::default().event("problem").data(text));
                }
            }
        }
        None
    }
}
