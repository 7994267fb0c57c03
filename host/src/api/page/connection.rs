//! A connection: its types with their tokens and what can be done, its runs, its limits, and what it may reach.

use std::collections::BTreeMap;

use axum::extract::State;
use maud::{Markup, html};
use tidewaiter_core::access::Role;
use tidewaiter_core::name::{ConnectionName, TypeKey};
use tidewaiter_core::run::RunReport;

use super::layout::{Act, act, amount, inside, outcome, state, time, token, why};
use super::{Page, Served, page};
use crate::api::error::{ApiError, Otherwise};
use crate::api::extract::{Path, Principal};
use crate::db::TokenChange;
use crate::driver::Activity;
use crate::host::Host;
use crate::host::view::{ConnectionView, Limit, TypeView};

/// Rows of a token's history.
const HISTORY: usize = 10;

/// The page: a connection
#[utoipa::path(get, path = "/ui/connections/{connection}", tag = "page", security(("bearer" = ["read"])),
    params(("connection" = ConnectionName, Path)), responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn get(State(app): Served, Path(name): Path<ConnectionName>, who: Principal) -> Page {
    let host = &app.host;
    let types = host.types(Some(&name))?;
    if types.is_empty() {
        return Err(ApiError::not_found(format!("there is no connection {name}")));
    }
    let activity = host.activity().await;
    let mut sections = Vec::new();
    for view in &types {
        let history = host.token_history(&view.token.key, HISTORY)?;
        sections.push(of_type(host, view, activity.get(&view.token.key), &history, &who));
    }
    let whole = host.connection(&name);
    let body = html! {
        h1 { (name) }
        @match &whole {
            Ok(view) => (summary(view, &who)),
            Err(error) => p class="bad note" { (error) },
        }
        (actions(&name, &types, &who))
        @for section in &sections { (section) }
        @if let Ok(view) = &whole {
            (runs(&view.runs))
            (reach(view))
            (limits("Limits of a run", &view.limits))
            (limits("Limits of the sandbox", &view.sandbox))
        }
    };
    Ok(page(&inside(name.as_str(), "", &who, &body)))
}

fn summary(view: &ConnectionView, who: &Principal) -> Markup {
    html! {
        p {
            "Runs " a href="/ui/connectors" { (view.connector) } " " (view.connector_version) ", file " code { (short(&view.revision.sha256)) }
            @if view.revision.goes_back_to.is_some() { ", " span class="warn" { "on trial" } }
            "."
        }
        @if let Some(refused) = &view.revision.refused {
            p class="warn note" { "It does not run the newer file " code { (short(&refused.sha256)) } ": " (refused.why) }
        }
        @if let Some(id) = &view.awaits_approval {
            div class="warn note" {
                p { "An update of the connector asks for more than was approved, and doesn’t get it. See below what it asks for." }
                (act(who, &Act { method: "POST", path: format!("/api/v1/connections/{}/approve", view.name), body: Some(&format!("{{\"id\":\"{id}\"}}")),
                    label: "Approve what it asks for", sure: Some("It may ask for this from its next run on. What it gets, the grants say."), role: Role::Security }))
            }
        }
    }
}

pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn actions(name: &ConnectionName, types: &[TypeView], who: &Principal) -> Markup {
    let at = |what: &str| format!("/api/v1/connections/{name}/{what}");
    let paused = types.iter().any(|view| view.token.paused.is_some());
    let all_paused = types.iter().all(|view| view.token.paused.is_some());
    html! {
        div class="acts" role="group" aria-label="The connection" {
            @if !all_paused {
                (act(who, &Act { method: "POST", path: at("pause"), body: None, label: "Pause", sure: Some("What is under way ends, and nothing runs until somebody resumes it."), role: Role::Operate }))
            }
            @if paused { (act(who, &Act { method: "POST", path: at("resume"), body: None, label: "Resume", sure: None, role: Role::Operate })) }
            (act(who, &Act { method: "POST", path: at("check"), body: None, label: "Check", sure: None, role: Role::Operate }))
            (act(who, &Act { method: "POST", path: at("bring-up"), body: None, label: "Bring up",
                sure: Some("Tokens are established where there are none, then all objects are read, and what differs is journaled."), role: Role::Operate }))
        }
    }
}

fn of_type(
    host: &Host,
    view: &TypeView,
    activity: Option<&Activity>,
    history: &[TokenChange],
    who: &Principal,
) -> Markup {
    let TypeKey { connection, object_type } = &view.token.key;
    html! {
        section aria-labelledby={ "type-" (object_type) } {
            h2 id={ "type-" (object_type) } { (object_type) " " (state(view)) }
            @if let Some(why) = why(view) { p class="bad note" { (why) } }
            @if let Some(paused) = &view.token.paused { p class="note" { "Paused " (paused) "." } }
            dl {
                dt { "Class" } dd { (view.class) }
                dt { "Schedule" } dd { @if let Some(schedule) = &view.schedule { (schedule) } @else { "when asked" } }
                dt { "Next run" } dd { @match activity.and_then(|activity| activity.due) { Some(at) => (time(at)), None => "–" } }
                dt { "Last success" } dd { @match activity.and_then(|activity| activity.succeeded) { Some(at) => (time(at)), None => "none that is known" } }
                dt { "Sync token" } dd { (token(view.token.token.as_ref())) }
                dt { "Why" } dd { (view.token.why) }
                dt { "Reconciled" } dd { @match view.reconciled { Some(at) => (time(at)), None => "never" } }
            }
            @if let Some(pass) = host.pass(&view.token.key) {
                p { label for={ "pass-" (object_type) } { "Reconciliation: " (pass.counts.read) " of " (pass.expected) " objects" } " "
                    progress id={ "pass-" (object_type) } max=(pass.expected.max(1)) value=(pass.counts.read.min(pass.expected.max(1))) {} }
            }
            (type_actions(host, view, who))
            details class="more" data-keep={ "history-" (connection) "-" (object_type) } {
                summary { "History of the token" }
                div class="wide" tabindex="0" role="region" aria-label={ "History of the token of " (object_type) } {
                    table {
                        thead { tr { th scope="col" { "When" } th scope="col" { "State" } th scope="col" { "Token" } th scope="col" { "Why" } } }
                        tbody { @for row in history { tr { td { (time(row.at)) } td { (row.state) } td { (token(row.token.as_ref())) } td { (row.why) } } } }
                    }
                }
            }
        }
    }
}

fn type_actions(host: &Host, view: &TypeView, who: &Principal) -> Markup {
    let TypeKey { connection, object_type } = &view.token.key;
    let at = |what: &str| format!("/api/v1/connections/{connection}/types/{object_type}/{what}");
    let post =
        |what: &str, label, sure| Act { method: "POST", path: at(what), body: None, label, sure, role: Role::Operate };
    let is_held = view.token.held.is_some();
    html! {
        div class="acts" role="group" aria-label={ "The type " (object_type) } {
            (act(who, &post("sync", "Sync now", None)))
            (act(who, &Act { body: Some("{\"uid\":null,\"gone\":false,\"full\":false,\"dry-run\":false,\"allow-deletes\":false}"),
                ..post("reconcile", "Reconcile", Some("All objects are read, and what differs from what was journaled is journaled.")) }))
            @if host.pass(&view.token.key).is_some() {
                (act(who, &Act { method: "DELETE", ..post("pass", "Cancel the reconciliation", Some("What it journaled stays.")) }))
            }
            @if is_held {
                (act(who, &post("guard/release", "Release", Some("The next run journals what comes, however much it is."))))
                (act(who, &post("guard/discard", "Discard", Some("What came is thrown away, and the token with it: what happened meanwhile is skipped."))))
            }
            (act(who, &Act { body: Some("{}"), ..post("token/rewind", "Rewind the token", Some("What came after the token before comes again.")) }))
            (act(who, &Act { method: "DELETE", ..post("token", "Reset the token", Some("The next run asks where the source is now: what happened in between is skipped.")) }))
        }
    }
}

fn runs(runs: &[RunReport]) -> Markup {
    html! {
        h2 id="runs" { "Last runs that wrote something" }
        @if runs.is_empty() { p { "None yet." } } @else {
            div class="wide" tabindex="0" role="region" aria-labelledby="runs" {
                table {
                    thead { tr { th scope="col" { "Run" } th scope="col" { "Type" } th scope="col" { "Began" } th scope="col" { "Why" } th scope="col" { "Outcome" }
                        th scope="col" class="number" { "Changes" } th scope="col" class="number" { "Took" } th scope="col" class="number" { "Processor" } } }
                    tbody { @for run in runs { (of_run(run)) } }
                }
            }
        }
    }
}

fn of_run(run: &RunReport) -> Markup {
    let failed = crate::api::error::of_run(run);
    html! {
        tr {
            th scope="row" { (run.run) } td { (run.key.object_type) } td { (time(run.started)) } td { (run.trigger) } td { (outcome(run)) }
            td class="number" { (run.deltas) } td class="number" { (run.ended.0 - run.started.0) " ms" } td class="number" { (run.spent.cpu_us / 1000) " ms" }
        }
        @if failed.is_some() || !run.spent.log.is_empty() {
            tr { td colspan="8" {
                @if let Some(error) = failed { p class="bad" { (error.message()) } }
                @if !run.spent.log.is_empty() {
                    details class="more" data-keep={ "log-" (run.run) } { summary { "What the connector said last in run " (run.run) } pre { (run.spent.log.join("\n")) } }
                }
            } }
        }
    }
}

fn reach(view: &ConnectionView) -> Markup {
    let class = |decision: &str| match decision {
        "granted" => "good",
        "in-part" | "awaits-approval" => "warn",
        _ => "off",
    };
    html! {
        h2 id="reach" { "What it may reach" }
        @if view.capabilities.is_empty() { p { "It asks for nothing." } } @else {
            div class="wide" tabindex="0" role="region" aria-labelledby="reach" {
                table {
                    thead { tr { th scope="col" { "Asks for" } th scope="col" { "Reason" } th scope="col" { "Decision" } th scope="col" { "By" } } }
                    tbody { @for asked in &view.capabilities { tr {
                        th scope="row" { (asked.kind) " " (asked.target) @if asked.optional { " (optional)" } } td { (asked.reason) }
                        td { span class={ "state " (class(&asked.decision)) } { (asked.decision) } } td { (asked.by.join(", ")) }
                    } } }
                }
            }
        }
        @if !view.logins.is_empty() { (logins(&view.logins)) }
    }
}

fn logins(logins: &BTreeMap<String, Vec<String>>) -> Markup {
    html! { p { "Logs in with " @for (at, (name, to)) in logins.iter().enumerate() { @if at > 0 { ", " } strong { (name) } " (" (to.join(", ")) ")" } "." } }
}

fn limits(title: &str, limits: &[Limit]) -> Markup {
    html! {
        details class="more" data-keep=(title) {
            summary { (title) }
            div class="wide" tabindex="0" role="region" aria-label=(title) {
                table {
                    thead { tr { th scope="col" { "Limit" } th scope="col" class="number" { "Value" } th scope="col" class="number" { "Most that was taken" } } }
                    tbody { @for limit in limits { tr {
                        th scope="row" { (limit.name) } td class="number" { (amount(&limit.name, limit.value)) }
                        td class="number" { @match limit.highest { Some(highest) => (amount(&limit.name, highest)), None => "–" } }
                    } } }
                }
            }
        }
    }
}
