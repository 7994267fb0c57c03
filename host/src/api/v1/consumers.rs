//! Those who read the journal by themselves, with a place of their own.

use axum::extract::State;
use serde::Deserialize;
use serde_json::Value as Json;
use tidewaiter_core::access::Role;
use tidewaiter_core::name::ConsumerName;
use utoipa::{IntoParams, ToSchema};

use super::changes::{Asked, Change, may_see, page};
use super::{Answer, Page, Served, Wait, rows};
use crate::api::admit::refused;
use crate::api::error::{ApiError, Problems};
use crate::api::extract::{self, Path, Principal, Query};
use crate::api::feed::Wanted;
use crate::host::ask::{After, Ask};
use crate::host::view::ConsumerView;
use crate::host::{Host, HostError};

/// Somebody who is about to read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::api) struct NewConsumer {
    /// What it is called.
    name: ConsumerName,
    /// It has everything up to this entry, by id or sequence; left out: nothing.
    #[schema(value_type = Option<String>)]
    after: Option<After>,
    /// It expires when more entries than that wait for it; left out: never.
    max_lag: Option<u64>,
}

/// How far somebody got.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::api) struct Acknowledged {
    /// The last entry that it has, by id or sequence.
    #[schema(value_type = String)]
    upto: After,
}

/// How much is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct More {
    /// At most that many, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Wait so long for one if there is none, as in `30s`; at most `60s`.
    #[param(value_type = Option<String>)]
    wait: Option<Wait>,
    /// With what is sensitive, which is for the roles `security` and `admin`.
    #[serde(default)]
    sensitive: bool,
}

/// Consumers, and how far they got
#[utoipa::path(get, path = "/consumers", tag = "changes", security(("bearer" = ["read"])),
    responses((status = 200, body = Vec<ConsumerView>), Problems))]
pub(super) async fn list(State(app): Served) -> Answer<Vec<ConsumerView>> {
    Ok(axum::Json(app.host.consumers()?))
}

/// Let entries wait for a consumer until it has acknowledged them
#[utoipa::path(post, path = "/consumers", tag = "changes", security(("bearer" = ["operate"])),
    request_body = NewConsumer, responses((status = 200, body = ConsumerView), Problems))]
pub(super) async fn add(
    State(app): Served,
    who: Principal,
    extract::Json(new): extract::Json<NewConsumer>,
) -> Answer<ConsumerView> {
    let NewConsumer { name, after, max_lag } = new;
    let after = after.unwrap_or(After::Sequence(0));
    let ask = Ask::ConsumerAdd { consumer: name.clone(), after, max_lag };
    Box::pin(app.host.answer(ask, who.actor())).await?;
    one(&app.host, &name)
}

/// Let nothing wait for a consumer any more
#[utoipa::path(delete, path = "/consumers/{consumer}", tag = "changes", security(("bearer" = ["operate"])),
    params(("consumer" = ConsumerName, Path)), responses((status = 200, body = Vec<ConsumerView>), Problems))]
pub(super) async fn remove(
    State(app): Served,
    Path(name): Path<ConsumerName>,
    who: Principal,
) -> Answer<Vec<ConsumerView>> {
    Box::pin(app.host.answer(Ask::ConsumerRemove(name), who.actor())).await?;
    list(State(app)).await
}

/// What a consumer hasn't acknowledged yet, oldest first
#[utoipa::path(get, path = "/consumers/{consumer}/changes", tag = "changes", security(("bearer" = ["read"])),
    params(("consumer" = ConsumerName, Path), More), responses((status = 200, body = Page<Change>), Problems))]
pub(super) async fn changes(
    State(app): Served,
    Path(name): Path<ConsumerName>,
    Query(more): Query<More>,
    who: Principal,
) -> Answer<Page<Json>> {
    may_see(&app, &who, more.sensitive)?;
    let position = app.host.db().consumer_position(name.as_str()).map_err(HostError::from)?;
    let asked = Asked {
        after: After::Sequence(position),
        wanted: Wanted::default(),
        sensitive: more.sensitive,
        limit: rows(more.limit)?,
        wait: more.wait.unwrap_or_default().0,
    };
    page(&app, asked, &who).await
}

/// A consumer has everything up to an entry
///
/// Entries that everybody has may be dropped. An access token with the role `read` may do this for the consumer that is called as it is.
#[utoipa::path(post, path = "/consumers/{consumer}/acknowledge", tag = "changes", security(("bearer" = ["read"])),
    request_body = Acknowledged, params(("consumer" = ConsumerName, Path)), responses((status = 200, body = ConsumerView), Problems))]
pub(super) async fn acknowledge(
    State(app): Served,
    Path(consumer): Path<ConsumerName>,
    who: Principal,
    extract::Json(acknowledged): extract::Json<Acknowledged>,
) -> Answer<ConsumerView> {
    if !who.role.allows(Role::Operate) && who.name.as_str() != consumer.as_str() {
        let message =
            format!("{} has the role {}, and acknowledges only for a consumer of its name", who.name, who.role);
        return Err(refused(&app, &who, format!("acknowledge for the consumer {consumer}"), message)?);
    }
    let ask = Ask::ConsumerAck { consumer: consumer.clone(), upto: acknowledged.upto };
    Box::pin(app.host.answer(ask, who.actor())).await?;
    one(&app.host, &consumer)
}

fn one(host: &Host, name: &ConsumerName) -> Answer<ConsumerView> {
    let found = host.consumers()?.into_iter().find(|view| view.name == name.as_str());
    found.map(axum::Json).ok_or_else(|| ApiError::not_found(format!("there is no consumer {name}")))
}
