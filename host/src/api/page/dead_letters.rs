//! Dead letters, and what can be done about them.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;
use tidewaiter_core::access::Role;
use tidewaiter_core::name::ConnectionName;
use utoipa::IntoParams;

use super::layout::{Act, act, inside, time};
use super::{Page, Served, page};
use crate::api::error::{ApiError, Otherwise};
use crate::api::extract::{Principal, Query};
use crate::host::LetterView;

/// Those that are shown.
const SHOWN: usize = 200;

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Of which connection.
    connection: Option<String>,
}

/// The page: dead letters
#[utoipa::path(get, path = "/ui/dead-letters", tag = "page", security(("bearer" = ["read"])), params(Of),
    responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn list(State(app): Served, Query(of): Query<Of>, who: Principal) -> Page {
    let named = of.connection.filter(|name| !name.is_empty()).map(ConnectionName::try_from).transpose();
    let named = named.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let letters = app.host.dead_letters(named.as_ref()).await?;
    let body = html! {
        h1 { "Dead letters" }
        @if letters.is_empty() { p { "There is none: everything that came is journaled and delivered, or waits for its turn." } } @else {
            p { (letters.len()) " in all" @if letters.len() > SHOWN { "; the first " (SHOWN) " are shown" } "." }
            div class="wide" tabindex="0" role="region" aria-label="Dead letters" {
                table {
                    thead { tr { th scope="col" { "Number" } th scope="col" { "When" } th scope="col" { "Of" } th scope="col" { "Object" } th scope="col" { "What is wrong" } th scope="col" { "Act" } } }
                    tbody { @for letter in letters.iter().take(SHOWN) { (row(letter, &who)) } }
                }
            }
        }
    };
    Ok(page(&inside("Dead letters", "/ui/dead-letters", &who, &body)))
}

fn row(letter: &LetterView, who: &Principal) -> Markup {
    let path = |what: &str| format!("/api/v1/dead-letters/{}{what}", letter.number);
    html! {
        tr {
            th scope="row" { (letter.number) } td { (time(letter.at)) }
            td { (letter.key.connection) "/" (letter.key.object_type) @if let Some(sink) = &letter.sink { br; "sink " (sink) } }
            td { (letter.kind) " " (letter.uid) } td { @match &letter.fault { Some(fault) => (fault), None => "waits for one before it" } }
            td {
                @if letter.fault.is_some() {
                    (act(who, &Act { method: "POST", path: path("/retry"), body: None, label: "Retry", sure: None, role: Role::Operate }))
                    (act(who, &Act { method: "DELETE", path: path(""), body: None, label: "Give up", sure: Some("What it says is never told."), role: Role::Operate }))
                }
            }
        }
    }
}
