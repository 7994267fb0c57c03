//! The overview: each object type of each connection in a row.

use std::collections::BTreeMap;

use axum::extract::State;
use maud::{Markup, html};
use tidewaiter_core::name::TypeKey;
use tidewaiter_core::text::shown;

use super::layout::{inside, outcome, sparkline, state, time, why};
use super::{Page, Served, page};
use crate::api::App;
use crate::api::error::{ApiError, Otherwise};
use crate::api::extract::Principal;
use crate::driver::Activity;
use crate::host::HostError;
use crate::host::view::TypeView;

/// Runs in a sparkline.
const RUNS: usize = 30;
/// Of why a type doesn't do well; its own page has all of it.
const WHY_BYTES_MAX: usize = 160;

/// The page: what goes on
#[utoipa::path(get, path = "/", tag = "page", security(("bearer" = ["read"])),
    responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn get(State(app): Served, who: Principal) -> Page {
    let (types, activity) = (app.host.types(None)?, app.host.activity().await);
    let sinks = app.host.sinks().await?;
    let attention = types.iter().filter(|view| needs_somebody(view)).count();
    let failing = types.iter().filter(|view| view.token.failures > 0 && !needs_somebody(view)).count();
    let letters =
        types.iter().map(|view| view.dead_letters).chain(sinks.iter().map(|sink| sink.dead_letters)).sum::<u64>();
    let parts = [
        (attention > 0).then(|| format!("{attention} need somebody")),
        (failing > 0).then(|| format!("{failing} failing")),
        (letters > 0).then(|| format!("dead letters: {letters}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let body = html! {
        h1 { "Overview" }
        @if let Some(refused) = app.host.not_reloaded() {
            p class="bad note" { "Since " (time(refused.since)) " what is written is not taken over: " (refused.problem) }
        }
        p class="sum" {
            strong { (types.len()) } (if types.len() == 1 { " object type; " } else { " object types; " })
            @if parts.is_empty() { span class="good" { "nothing needs you" } } @else { span class="bad" { (parts.join(", ")) } }
            ". The journal ends with entry " strong { (app.host.db().last_sequence()) } "."
        }
        @if types.is_empty() { p { "No connection is configured yet. The README says how to add one." } }
        @else { (table(&app, &types, &activity)?) }
        @if !sinks.is_empty() {
            h2 id="sinks" { "Sinks" }
            div class="wide" tabindex="0" role="region" aria-labelledby="sinks" {
                table {
                    thead { tr { th scope="col" { "Sink" } th scope="col" { "Kind" } th scope="col" class="number" { "Behind" } th scope="col" class="number" { "Dead letters" } th scope="col" { "Problem" } } }
                    tbody {
                        @for sink in &sinks {
                            tr {
                                th scope="row" { (sink.sink) } td { (sink.r#type) } td class="number" { (sink.behind) } td class="number" { @if sink.dead_letters > 0 { a href="/ui/dead-letters" { (sink.dead_letters) } } @else { "0" } }
                                td { @if let Some(problem) = &sink.problem { span class="bad" { (problem) } } @else { "–" } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page(&inside("Overview", "/", &who, &body)))
}

pub(super) fn needs_somebody(view: &TypeView) -> bool {
    view.problem.is_some() || matches!(view.token.state.as_str(), "token-lost" | "held")
}

fn table(app: &App, types: &[TypeView], activity: &BTreeMap<TypeKey, Activity>) -> Result<Markup, ApiError> {
    let mut rows = Vec::new();
    for view in types {
        let runs = app.host.db().runs(Some(&view.token.key), RUNS).map_err(HostError::from)?;
        let deltas: Vec<u64> = runs.iter().rev().map(|run| run.deltas).collect();
        rows.push((view, activity.get(&view.token.key), deltas));
    }
    Ok(html! {
        div class="wide" tabindex="0" role="region" aria-label="Connections" {
            table {
                thead {
                    tr {
                        th scope="col" { "Connection" } th scope="col" { "Type" } th scope="col" { "State" } th scope="col" { "Last success" }
                        th scope="col" { "Next run" } th scope="col" { "Last run" } th scope="col" { "Changes" } th scope="col" class="number" { "Dead letters" }
                    }
                }
                tbody { @for (view, activity, deltas) in &rows { (row(view, *activity, deltas)) } }
            }
        }
    })
}

fn row(view: &TypeView, activity: Option<&Activity>, deltas: &[u64]) -> Markup {
    let (key, succeeded) = (&view.token.key, activity.and_then(|activity| activity.succeeded));
    html! {
        tr {
            th scope="row" { a href={ "/ui/connections/" (key.connection) } { (key.connection) } }
            td { (key.object_type) }
            td { (state(view)) @if let Some(why) = why(view) { br; small { (shown(&why, WHY_BYTES_MAX)) } } }
            td { @if let Some(at) = succeeded { (time(at)) } @else { "–" } }
            td {
                @match activity {
                    _ if needs_somebody(view) || view.token.paused.is_some() => "–",
                    Some(activity) if activity.running => span class="good" { "runs now" },
                    Some(Activity { due: Some(at), .. }) => (time(*at)),
                    _ => @if let Some(schedule) = &view.schedule { (schedule) } @else { "when asked" },
                }
            }
            // One that found nothing leaves nothing behind but that it succeeded.
            @let last = view.last_run.as_ref().filter(|run| succeeded.is_none_or(|at| at <= run.ended));
            td { @if let Some(run) = last { (outcome(run)) " " (time(run.ended)) } @else if succeeded.is_some() { span class="state good" { "ok" } } @else { "–" } }
            td { (sparkline(deltas, RUNS)) }
            td class="number" { @if view.dead_letters > 0 { a href={ "/ui/dead-letters?connection=" (key.connection) } { (view.dead_letters) } } @else { "0" } }
        }
    }
}
