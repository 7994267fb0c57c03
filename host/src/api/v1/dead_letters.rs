//! Dead letters.

use axum::extract::State;
use serde::Deserialize;
use tidewaiter_core::name::ConnectionName;
use utoipa::IntoParams;

use super::{Answer, Page, Served, rows};
use crate::api::error::Problems;
use crate::api::extract::{Path, Principal, Query};
use crate::host::{LetterView, Settled};

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Of {
    /// Of which connection; left out: of all.
    connection: Option<ConnectionName>,
    /// Those after so many, as `next` has it.
    #[serde(default)]
    after: usize,
    /// At most that many, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Dead letters: each type's in the order in which they came, then each sink's
#[utoipa::path(get, path = "/dead-letters", tag = "dead letters", security(("bearer" = ["read"])),
    params(Of), responses((status = 200, body = Page<LetterView>), Problems))]
pub(super) async fn list(State(app): Served, Query(of): Query<Of>) -> Answer<Page<LetterView>> {
    let limit = rows(of.limit)?;
    let mut letters = app.host.dead_letters(of.connection.as_ref()).await?.into_iter().skip(of.after);
    let items: Vec<LetterView> = letters.by_ref().take(limit).collect();
    let next = letters.next().map(|_| (of.after + items.len()).to_string());
    Ok(axum::Json(Page { items, next }))
}

/// A dead letter, with what came
#[utoipa::path(get, path = "/dead-letters/{number}", tag = "dead letters", security(("bearer" = ["read"])),
    responses((status = 200, body = LetterView), Problems))]
pub(super) async fn get(State(app): Served, Path(number): Path<u64>, who: Principal) -> Answer<LetterView> {
    Ok(axum::Json(app.host.dead_letter(number, &who.actor()).await?))
}

/// Have the object of a dead letter told as it is now
#[utoipa::path(post, path = "/dead-letters/{number}/retry", tag = "dead letters", security(("bearer" = ["operate"])),
    responses((status = 200, body = Settled), Problems))]
pub(super) async fn retry(State(app): Served, Path(number): Path<u64>, who: Principal) -> Answer<Settled> {
    Ok(axum::Json(Box::pin(app.host.retry_dead_letter(number, who.actor())).await?))
}

/// Give a dead letter up
#[utoipa::path(delete, path = "/dead-letters/{number}", tag = "dead letters", security(("bearer" = ["operate"])),
    responses((status = 200, body = Settled), Problems))]
pub(super) async fn give_up(State(app): Served, Path(number): Path<u64>, who: Principal) -> Answer<Settled> {
    Ok(axum::Json(app.host.drop_dead_letter(number, who.actor()).await?))
}
