//! `Idempotency-Key`: a request that is sent again, because its answer was lost on the way, is answered as it was and not done twice. What is remembered is
//! bounded, and gone when the server ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, response::Parts};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tidewaiter_core::name::AccessName;
use tidewaiter_core::time::Moment;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::App;
use super::admit::BODY_BYTES_MAX;
use super::error::ApiError;
use crate::clock::Clock;

const HEADER: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
const KEY_CHARS_MAX: usize = 255;
/// Of one access token.
const KEPT_MAX: usize = 1000;
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// A larger answer is not kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

type Key = (AccessName, String);

struct Known {
    /// Of the request.
    hash: [u8; 32],
    until: Moment,
    /// None: it is under way.
    answer: Option<Answer>,
}

#[derive(Clone)]
enum Answer {
    Kept(Parts, Bytes),
    TooLarge,
}

/// Requests that were done.
pub(super) struct Remembered {
    known: Mutex<HashMap<Key, Known>>,
    tasks: Mutex<JoinSet<()>>,
    clock: Clock,
}

/// Does a request that somebody makes, and one with a key once.
pub(super) async fn once(app: Arc<App>, who: &AccessName, request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(given) = request.headers().get(HEADER).filter(|_| *request.method() == Method::POST) else {
        return Ok(next.run(request).await);
    };
    let text = given.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_CHARS_MAX);
    let bad = || ApiError::bad_request(format!("an {HEADER} has 1 to {KEY_CHARS_MAX} visible characters"));
    let key = (who.clone(), text.ok_or_else(bad)?.to_owned());
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut hash = Sha256::new_with_prefix(head.method.as_str());
    hash.update(head.uri.to_string());
    hash.update([0]);
    hash.update(&body);
    if let Some(answered) = app.remembered.known(&key, hash.finalize().into())? {
        return answered;
    }
    // Done to its end, whether or not whoever asked is there still.
    let (answer, answered) = oneshot::channel();
    let request = Request::from_parts(head, body.into());
    let of = Arc::clone(&app);
    app.remembered.spawn(async move {
        let busy = Busy { app: of, key };
        let response = next.run(request).await;
        drop(answer.send(busy.app.remembered.keep(&busy.key, response).await));
    });
    answered.await.map_err(|_| match app.host.closing().is_cancelled() {
        true => ApiError::unavailable("shutting-down", "the host is shutting down"),
        false => ApiError::bug("one that was to be done once"),
    })
}

/// A request that is under way: where it comes to no end, it may be made again.
struct Busy {
    app: Arc<App>,
    key: Key,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut known = self.app.remembered.all();
        if known.get(&self.key).is_some_and(|one| one.answer.is_none()) {
            known.remove(&self.key);
        }
    }
}

impl Remembered {
    pub(super) fn new(clock: Clock) -> Self {
        Self { known: Mutex::default(), tasks: Mutex::default(), clock }
    }

    /// What was answered to the same request; none: it is new, and noted.
    fn known(&self, key: &Key, hash: [u8; 32]) -> Result<Option<Result<Response, ApiError>>, ApiError> {
        let (mut known, now) = (self.all(), self.clock.moment());
        known.retain(|_, one| one.until > now);
        match known.get(key) {
            None if known.keys().filter(|(name, _)| *name == key.0).count() >= KEPT_MAX => {
                Err(ApiError::too_many(format!("{KEPT_MAX} idempotency keys of {} are remembered", key.0), 60))
            }
            None => {
                known.insert(key.clone(), Known { hash, until: now + KEPT_FOR, answer: None });
                Ok(None)
            }
            Some(one) if one.hash != hash => Err(ApiError::of(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-used",
                format!("the {HEADER} was used for another request"),
            )),
            Some(Known { answer: None, .. }) => {
                Err(ApiError::conflict("idempotency-key-busy", "the same request is under way"))
            }
            Some(Known { answer: Some(Answer::TooLarge), .. }) => Err(ApiError::conflict(
                "idempotency-answer-gone",
                "the same request was done, and its answer was too large to be kept",
            )),
            Some(Known { answer: Some(Answer::Kept(parts, body)), .. }) => {
                let mut response = Response::from_parts(parts.clone(), Body::from(body.clone()));
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                Ok(Some(Ok(response)))
            }
        }
    }

    /// Keeps an answer, unless it says that nothing was done: the same may be tried again.
    async fn keep(&self, key: &Key, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let again = !parts.status.is_success();
        // Answers to these requests are made as a whole.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let mut known = self.all();
        match known.get_mut(key) {
            Some(_) if again => drop(known.remove(key)),
            Some(one) if body.len() > ANSWER_BYTES_MAX => one.answer = Some(Answer::TooLarge),
            Some(one) => one.answer = Some(Answer::Kept(parts.clone(), body.clone())),
            None => {}
        }
        Response::from_parts(parts, body.into())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
