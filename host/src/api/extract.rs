//! What handlers take out of requests. What can't be taken is told in the API's words.

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::access::Admitted;

/// Names in the path.
pub(super) struct Path<T>(pub(super) T);
/// Parameters of the query.
pub(super) struct Query<T>(pub(super) T);
/// The body.
pub(super) struct Json<T>(pub(super) T);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Principal(pub(super) Admitted);

impl std::ops::Deref for Principal {
    type Target = Admitted;
    fn deref(&self) -> &Admitted {
        &self.0
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // No name that isn't one is the name of something.
        let taken = axum::extract::Path::from_request_parts(parts, state).await;
        taken.map(|axum::extract::Path(names)| Self(names)).map_err(|error| ApiError::not_found(error.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let taken = axum::extract::Query::from_request_parts(parts, state).await;
        taken.map(|axum::extract::Query(query)| Self(query)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // Whatever may all be left out needn't be sent.
        if request.body().is_end_stream() && request.headers().get(header::CONTENT_TYPE).is_none() {
            return serde_json::from_str("{}").map(Self).map_err(|error| ApiError::bad_request(error.to_string()));
        }
        let taken = axum::Json::from_request(request, state).await;
        let refused = |error: axum::extract::rejection::JsonRejection| match error.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ApiError::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", error.body_text())
            }
            _ => ApiError::bad_request(error.body_text()),
        };
        taken.map(|axum::Json(body)| Self(body)).map_err(refused)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(|| ApiError::unauthorized("nobody in particular asks"))
    }
}

/// What a request insists on of what is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing.
    Anything,
    /// That it is there.
    Something,
    /// That it isn't.
    Nothing,
    /// That it is this.
    This(String),
}

impl Expected {
    /// `If-Match` with a mark, or `*` for any; `If-None-Match: *` for none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name: header::HeaderName| {
            let value = headers.get(&name).map(|value| value.to_str().map(|text| text.trim().to_owned()));
            value.transpose().map_err(|_| ApiError::bad_request(format!("the header {name} is no text")))
        };
        let (same, none) = (text(header::IF_MATCH)?, text(header::IF_NONE_MATCH)?);
        match (same.as_deref(), none.as_deref()) {
            (_, Some("*")) => Ok(Self::Nothing),
            (Some("*"), _) => Ok(Self::Something),
            (Some(mark), _) => Ok(Self::This(mark.trim_matches('"').to_owned())),
            (None, _) => Ok(Self::Anything),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_scripts_write_them() {
        let of = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Expected::of(&headers).unwrap()
        };
        assert_eq!(Expected::of(&HeaderMap::new()).unwrap(), Expected::Anything);
        assert_eq!(of(header::IF_MATCH, "*"), Expected::Something);
        assert_eq!(of(header::IF_MATCH, "\"4\""), Expected::This("4".into()));
        assert_eq!(of(header::IF_MATCH, " 4 "), Expected::This("4".into()));
        assert_eq!(of(header::IF_NONE_MATCH, "*"), Expected::Nothing);
    }
}
