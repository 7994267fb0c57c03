//! Connectors: their files, who runs them, and what can be decided about them.

use axum::extract::State;
use maud::{Markup, html};
use tidewaiter_core::access::Role;

use super::connection::short;
use super::layout::{Act, act, amount, inside, time};
use super::{Page, Served, page};
use crate::api::error::Otherwise;
use crate::api::extract::Principal;
use crate::host::RevisionRow;
use crate::host::view::ConnectorView;

/// The page: connectors
#[utoipa::path(get, path = "/ui/connectors", tag = "page", security(("bearer" = ["read"])),
    responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn list(State(app): Served, who: Principal) -> Page {
    let mut sections = Vec::new();
    for view in app.host.connectors()? {
        let revisions = if view.revisions > 0 { app.host.revisions(&view.name)? } else { Vec::new() };
        sections.push(section(&view, &revisions, &who));
    }
    let body = html! {
        h1 { "Connectors" }
        @if sections.is_empty() { p { "No connection names a connector yet." } }
        @for section in &sections { (section) }
    };
    Ok(page(&inside("Connectors", "/ui/connectors", &who, &body)))
}

fn section(view: &ConnectorView, revisions: &[RevisionRow], who: &Principal) -> Markup {
    let at = |what: &str| format!("/api/v1/connectors/{}/{what}", view.name);
    let act_of = |method, what: &str, body, label, sure, role| {
        act(who, &Act { method, path: at(what), body, label, sure, role })
    };
    html! {
        section aria-labelledby={ "connector-" (view.name) } {
            h2 id={ "connector-" (view.name) } { (view.name) @if view.quarantined.is_some() { " " span class="state bad" { "quarantine" } } }
            @if let Some(why) = &view.quarantined { p class="bad note" { (why) } }
            @if view.faults > 0 { p class="warn note" { (view.faults) " runs in a row trapped or broke the contract." } }
            @for name in &view.awaits_approval {
                p class="warn note" { "It asks for more than was approved in " a href={ "/ui/connections/" (name) } { (name) } "." }
            }
            p { "Runs in " @if view.connections.is_empty() { "no connection" }
                @for (at, name) in view.connections.iter().enumerate() { @if at > 0 { ", " } a href={ "/ui/connections/" (name) } { (name) } } "." }
            div class="acts" role="group" aria-label={ "The connector " (view.name) } {
                (act_of("POST", "rollback", Some("{}"), "Roll back", Some("Connections run the file before, from their next run on."), Role::Operate))
                (act_of("POST", "retry", Some("{}"), "Try again", Some("Connections run the file that they went back from."), Role::Operate))
                (act_of("POST", "pin", Some("{}"), "Pin the file in the folder", Some("The file that the folder has now may be run, and runs."), Role::Security))
                @if view.quarantined.is_none() {
                    (act_of("PUT", "quarantine", Some("{\"why\":null}"), "Quarantine", Some("What is under way of it ends now, and nobody runs it."), Role::Security))
                } @else {
                    (act_of("DELETE", "quarantine", None, "End the quarantine", Some("Its files may be run again."), Role::Security))
                }
            }
            @if revisions.is_empty() { p { "No file of it was met yet." } } @else { (table(view, revisions)) }
        }
    }
}

fn table(view: &ConnectorView, revisions: &[RevisionRow]) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label={ "Files of " (view.name) } {
            table {
                thead { tr { th scope="col" { "File" } th scope="col" { "Version" } th scope="col" { "Size" } th scope="col" { "Met" } th scope="col" { "Trusted" } th scope="col" { "Runs in" } } }
                tbody { @for row in revisions { (of_revision(row)) } }
            }
        }
    }
}

fn of_revision(row: &RevisionRow) -> Markup {
    let revision = &row.revision;
    html! {
        tr {
            th scope="row" { code title=(revision.sha256) { (short(&revision.sha256)) } } td { (revision.version) }
            td class="number" { (amount("bytes", revision.bytes)) } td { (time(revision.seen)) } td { (revision.trust) }
            td {
                @for (at, name) in row.runs.iter().enumerate() { @if at > 0 { ", " } (name) @if row.on_trial.contains(name) { " (on trial)" } }
                @if row.runs.is_empty() { "–" }
                @if let Some(why) = &row.denied { br; span class="bad" { "denied: " (why) } }
                @for (name, why) in &row.refused { br; small { "not in " (name) ": " (why) } }
            }
        }
    }
}
