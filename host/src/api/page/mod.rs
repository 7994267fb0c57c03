//! The page for people: what goes on, in the server's own HTML. What it lets people do, it asks of the API, as anybody would; it has no other way to the host's acts. Nothing of it comes
//! from elsewhere, and nothing in it is trusted: whatever connectors and sources say is text.

mod changes;
mod connection;
mod connectors;
mod dead_letters;
mod layout;
mod overview;
mod reference;
pub(super) mod session;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use futures_util::stream;
use maud::Markup;
use tokio::time::{sleep, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::session::Sessions;
use super::App;
use super::error::{ApiError, Otherwise};
use super::extract::Principal;

/// Nothing but what this server sends, and nothing that is written into a page.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";
/// How often a page is made anew at most, and at least.
const LIVE_MIN: Duration = Duration::from_secs(1);
const LIVE_MAX: Duration = Duration::from_secs(10);

type Page = Result<Html<String>, ApiError>;
type Served = axum::extract::State<Arc<App>>;

pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(overview::get))
        .routes(routes!(connection::get))
        .routes(routes!(changes::list))
        .routes(routes!(changes::get))
        .routes(routes!(connectors::list))
        .routes(routes!(dead_letters::list))
        .routes(routes!(reference::get))
        .routes(routes!(session::form, session::begin))
        .routes(routes!(session::end))
        .routes(routes!(style))
        .routes(routes!(script))
        .routes(routes!(icon))
        .routes(routes!(live))
        .layer(map_response(guarded))
}

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY"));
    response
}

fn page(markup: &Markup) -> Html<String> {
    Html(markup.0.clone())
}

/// The style of the page
#[utoipa::path(get, path = "/ui/style.css", tag = "page", security(()), responses((status = 200, body = String, content_type = "text/css")))]
async fn style() -> Response {
    fixed("text/css; charset=utf-8", include_str!("style.css"))
}

/// What makes the page live
#[utoipa::path(get, path = "/ui/page.js", tag = "page", security(()), responses((status = 200, body = String, content_type = "text/javascript")))]
async fn script() -> Response {
    fixed("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// The icon of the page
#[utoipa::path(get, path = "/ui/icon.svg", tag = "page", security(()), responses((status = 200, body = String, content_type = "image/svg+xml")))]
async fn icon() -> Response {
    fixed("image/svg+xml", include_str!("icon.svg"))
}

fn fixed(kind: &'static str, text: &'static str) -> Response {
    let kept = HeaderValue::from_static("max-age=300");
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, kept)], text).into_response()
}

/// Why a page can't be shown, for people.
pub(super) async fn failed(error: &ApiError) -> Response {
    let text = maud::html! {
        h1 { (error.title()) }
        p { (error.message()) "." }
        p { a href="/" { "Overview" } }
    };
    guarded((error.status(), page(&layout::outside(error.title(), &text))).into_response()).await
}

/// When to look again
///
/// Server-sent events: `journaled`, something was, and `later`, some time has passed.
#[utoipa::path(get, path = "/ui/live", tag = "page", security(("bearer" = ["read"])),
    responses((status = 200, body = String, content_type = "text/event-stream"), Otherwise))]
async fn live(axum::extract::State(app): Served, who: Principal) -> Result<Response, ApiError> {
    let (durable, place) = (app.host.db().watch(), app.places.take(&who.name)?);
    let events = stream::unfold((app, who, durable, place), async |(app, who, mut durable, place)| {
        let closing = app.host.closing().clone();
        let news = async {
            let journaled = timeout(LIVE_MAX, durable.changed()).await.is_ok();
            sleep(LIVE_MIN).await;
            durable.borrow_and_update();
            if journaled { "journaled" } else { "later" }
        };
        let news = closing.run_until_cancelled(news).await?;
        let current = app.host.access().is_current(&who);
        let event = Event::default().event(news).data("look");
        current.then_some((Ok::<_, std::convert::Infallible>(event), (app, who, durable, place)))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(LIVE_MAX)).into_response())
}
