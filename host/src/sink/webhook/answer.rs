//! What an answer means: any 2xx is delivered, all else is not yet.

use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use tidewaiter_core::grant::destination::Destination;
use tidewaiter_core::text::{erase, shown};
use tidewaiter_core::time::UnixMillis;
use tokio::time::timeout;

use super::super::Undelivered;
use crate::egress::Body;
use crate::secret::Secret;

/// More of an answer isn't read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long its words are waited for.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// More of a server's own words isn't told, in bytes.
const WORDS_MAX: usize = 200;
/// The longest that a server can put us off.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What a server answers, unless something else is configured, to entries that it won't ever take: the others may speak of the login, the URL or the time.
pub(crate) const REFUSALS: [StatusCode; 4] =
    [StatusCode::BAD_REQUEST, StatusCode::CONFLICT, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];

/// Whether it is delivered. What a server said that was shown a token is told without it.
pub(super) async fn judge(
    (server, refusals): (&Destination, &[StatusCode]),
    answer: Response<Body>,
    bearer: Option<&Secret>,
    now: UnixMillis,
) -> Result<(), Undelivered> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        let problem = format!("{server} answers {status}: redirects are not followed, so the URL must be the new one");
        return Err(Undelivered::because(problem));
    }
    let wait = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => retry_after(answer.headers(), now),
        _ => Duration::ZERO,
    };
    let mut words = words(answer.into_body(), ANSWER_TIME).await;
    if let Some(bearer) = bearer.and_then(|bearer| std::str::from_utf8(bearer.expose_secret()).ok()) {
        erase(&mut words, bearer);
    }
    let words = shown(words.trim(), WORDS_MAX);
    let problem = match words.is_empty() {
        true => format!("{server} answers {status}"),
        false => format!("{server} answers {status}: {words}"),
    };
    Err(Undelivered { problem, wait, refused: refusals.contains(&status) })
}

/// The beginning of what it says, as far as that comes in time.
async fn words(mut body: Body, time_max: Duration) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let part = frame.data_ref().map_or(&[][..], |data| data);
            bytes.extend_from_slice(&part[..part.len().min(ANSWER_BYTES_MAX - bytes.len())]);
            if bytes.len() == ANSWER_BYTES_MAX {
                return;
            }
        }
    };
    let _ = timeout(time_max, read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How long a server wants to be left alone (RFC 9110, 10.2.3): so many seconds, or until a time.
fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Duration {
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) else { return Duration::ZERO };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = match is_number {
        // What overflows is beyond any bound.
        true => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        false => {
            let now = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
            let until = httpdate::parse_http_date(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            until.map_or(Duration::ZERO, |until| until.saturating_sub(now))
        }
    };
    wait.min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: UnixMillis = UnixMillis(784_111_777_000);

    #[test]
    fn a_server_puts_us_off_by_seconds_or_until_a_time_and_not_for_ever() {
        for (text, seconds) in [
            ("0", 0),
            ("7", 7),
            ("3601", 3600),
            ("99999999999999999999999", 3600),
            ("Sun, 06 Nov 1994 08:50:00 GMT", 23),
            ("Sunday, 06-Nov-94 08:50:00 GMT", 23),
            ("Sun Nov  6 08:50:00 1994", 23),
            ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
            ("Mon, 06 Nov 2034 08:50:00 GMT", 3600),
            ("", 0),
            ("-7", 0),
            ("7.5", 0),
            ("soon", 0),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, NOW).as_secs(), seconds, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), NOW), Duration::ZERO);
    }

    async fn judged(status: u16, body: Body) -> Result<(), Undelivered> {
        let answer = Response::builder().status(status).header(RETRY_AFTER, "7").body(body).unwrap();
        let bearer = Secret::from(b"hunter2".to_vec());
        judge((&"https://a.example".parse().unwrap(), &REFUSALS), answer, Some(&bearer), NOW).await
    }

    fn text(text: &str) -> Body {
        Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn only_a_2xx_is_delivered_and_all_else_is_told_harmlessly() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, text("")).await, Ok(()));
        }
        for (status, words, problem, wait) in [
            (500, "", "https://a.example answers 500 Internal Server Error", 0),
            (400, " no\nway\u{1b}[2J ", "https://a.example answers 400 Bad Request: no\\nway\\u{1b}[2J", 0),
            (401, "hunter2?", "https://a.example answers 401 Unauthorized: [erased]?", 0),
            (429, "slow", "https://a.example answers 429 Too Many Requests: slow", 7),
            (503, "", "https://a.example answers 503 Service Unavailable", 7),
        ] {
            let undelivered = judged(status, text(words)).await.unwrap_err();
            let refused = status == 400;
            assert_eq!(undelivered, Undelivered { problem: problem.into(), wait: Duration::from_secs(wait), refused });
        }
        let redirected = judged(307, text("")).await.unwrap_err().problem;
        assert!(redirected.contains("307") && redirected.contains("not followed"), "{redirected}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_in_size_and_time() {
        let part = || Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])));
        let endless = StreamBody::new(stream::repeat_with(part)).boxed_unsync();
        let told = judged(500, endless).await.unwrap_err().problem;
        assert!(told.len() < WORDS_MAX + 100 && told.ends_with("x…"), "{told}");
        let stalled = StreamBody::new(stream::iter([part()]).chain(stream::pending())).boxed_unsync();
        assert_eq!(words(stalled, Duration::from_millis(10)).await, "x".repeat(1000));
    }
}
