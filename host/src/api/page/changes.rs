//! The journal, newest first, and one entry of it.

use std::time::Duration;

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value as Json;
use tidewaiter_core::name::{ConnectionName, TypeName};
use utoipa::IntoParams;

use super::layout::inside;
use super::{Page, Served, page};
use crate::api::App;
use crate::api::error::{ApiError, Otherwise};
use crate::api::extract::{Path, Principal, Query};
use crate::api::feed::Wanted;
use crate::api::v1::{change, entry_id, note};
use crate::host::HostError;
use crate::host::ask::After;
use crate::sink::render;

/// Entries on a page.
const SHOWN: usize = 50;
/// Entries that are looked through for them.
const LOOKED_THROUGH: u64 = 5000;

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Of this connection.
    connection: Option<String>,
    /// Of this object type.
    r#type: Option<String>,
    /// Of the object with this uid.
    uid: Option<String>,
    /// Those before this sequence.
    before: Option<u64>,
}

/// The page: changes
#[utoipa::path(get, path = "/ui/changes", tag = "page", security(("bearer" = ["read"])), params(Of),
    responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn list(State(app): Served, Query(of): Query<Of>, who: Principal) -> Page {
    let before = of.before.unwrap_or(u64::MAX).min(app.host.db().last_sequence() + 1);
    let (found, next) = newest(&app, &of, before).await?;
    if let (Some(first), Some(last)) = (found.last(), found.first()) {
        note(&app.host, &who, [first, last].map(entry_id), false)?;
    }
    let older = next.map(|next| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("connection", &of.connection), ("type", &of.r#type), ("uid", &of.uid)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                query.append_pair(name, value);
            }
        }
        query.append_pair("before", &next.to_string());
        format!("/ui/changes?{}", query.finish())
    });
    let body = html! {
        h1 { "Changes" }
        (filter(&of))
        @if found.is_empty() {
            p { "There is no such change" @if older.is_some() { " among the " (LOOKED_THROUGH) " that were looked through" } "." }
        } @else { (table(&found)) }
        @if let Some(older) = older { p { a href=(older) { "Older ones" } } }
    };
    Ok(page(&inside("Changes", "/ui/changes", &who, &body)))
}

/// The last entries before a sequence that are wanted, newest first, and where those before them are.
async fn newest(app: &App, of: &Of, before: u64) -> Result<(Vec<Json>, Option<u64>), ApiError> {
    let named = |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).cloned();
    let bad = |what: &str| ApiError::bad_request(format!("that is no name of {what}"));
    let wanted = Wanted {
        connection: named(&of.connection).map(ConnectionName::try_from).transpose().map_err(|_| bad("a connection"))?,
        object_type: named(&of.r#type).map(TypeName::try_from).transpose().map_err(|_| bad("an object type"))?,
        kind: None,
        uid: named(&of.uid),
    };
    let (first, hidden) =
        (app.host.db().first_sequence().map_err(HostError::from)?, app.host.db().sensitive().map_err(HostError::from)?);
    let (mut found, mut before, floor) = (Vec::new(), before, before.saturating_sub(LOOKED_THROUGH));
    while found.len() < SHOWN && before > first && before > floor {
        let from = before.saturating_sub(SHOWN as u64).max(first);
        let wide = usize::try_from(before - from).unwrap_or(SHOWN);
        let mut entries = Vec::new();
        let mut after = from - 1;
        while entries.len() < wide {
            let page = app.host.changes(After::Sequence(after), wide - entries.len(), Duration::ZERO).await?;
            let Some(last) = page.last() else { break };
            after = last.id.sequence;
            entries.extend(page);
        }
        for entry in entries.iter().rev() {
            let json = render::masked(entry, &hidden);
            if found.len() < SHOWN && wanted.has(entry, &json) {
                found.push(json);
            }
        }
        before = from;
    }
    let oldest = found.last().filter(|_| found.len() == SHOWN).and_then(|json| json["sequence"].as_u64());
    let next = oldest.unwrap_or(before);
    Ok((found, (next > first).then_some(next)))
}

fn filter(of: &Of) -> Markup {
    let field = |name: &str, label: &str, value: &Option<String>| {
        html! { div { label for=(name) { (label) } input id=(name) name=(name) value=(value.as_deref().unwrap_or_default()) autocomplete="off"; } }
    };
    html! {
        form method="get" action="/ui/changes" class="filter" role="search" aria-label="Changes" {
            (field("connection", "Connection", &of.connection)) (field("type", "Type", &of.r#type)) (field("uid", "Uid", &of.uid))
            button type="submit" { "Filter" }
        }
    }
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_default()
}

fn table(found: &[Json]) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label="Changes" {
            table {
                thead { tr { th scope="col" { "Entry" } th scope="col" { "When" } th scope="col" { "Type" } th scope="col" { "What" } th scope="col" { "Object" } } }
                tbody { @for json in found { tr {
                    th scope="row" { a href={ "/ui/changes/" (text(json, "id")) } { (json["sequence"]) } }
                    td { time datetime=(text(json, "at")) { (text(json, "at").replace('T', " ")) } }
                    td { (text(json, "connection")) "/" (text(json, "type")) }
                    td { (text(json, "kind")) @if json["read"] == true { " (read)" } }
                    td { (text(json, "uid")) @if !text(json, "by").is_empty() { "by " (text(json, "by")) } }
                } } }
            }
        }
    }
}

/// The page: a change
#[utoipa::path(get, path = "/ui/changes/{id}", tag = "page", security(("bearer" = ["read"])),
    responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn get(State(app): Served, Path(id): Path<String>, who: Principal) -> Page {
    let json = change(&app, &id).await?;
    note(&app.host, &who, [&json, &json].map(entry_id), false)?;
    let plain =
        json.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "attributes" | "partial"));
    let body = html! {
        h1 { "Entry " (json["sequence"]) }
        dl { @for (name, value) in plain { dt { (name) } dd { (shown(value)) } } }
        @if let Some(attributes) = json["attributes"].as_object() {
            h2 id="attributes" { "Attributes" }
            div class="wide" tabindex="0" role="region" aria-labelledby="attributes" {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Values" } } }
                    tbody { @for (name, values) in attributes { tr { th scope="row" { (name) } td { @for (at, value) in values.as_array().into_iter().flatten().enumerate() { @if at > 0 { br; } (shown(value)) } } } } }
                }
            }
        }
        @if let Some(partial) = json["partial"].as_array() {
            h2 { "Attributes in part" }
            pre { (serde_json::to_string_pretty(partial).unwrap_or_default()) }
        }
        p { a href="/ui/changes" { "All changes" } }
    };
    Ok(page(&inside(&format!("Entry {}", json["sequence"]), "", &who, &body)))
}

fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
