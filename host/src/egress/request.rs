//! Makes the request that leaves out of the one that a guest handed over: its URL and Host from what was checked, and nothing of how
//! it is framed on the wire.

use http::header::{self, HeaderMap, HeaderName};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tidewaiter_core::grant::destination::Destination;

use super::Body;
use super::error::EgressError;

/// The longest path and query, in bytes.
const URL_BYTES_MAX: usize = 16 * 1024;
/// The headers of an answer, in bytes.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a header has beside its name and value.
const LINE_BYTES: usize = 4;
/// What belongs to one connection and not to the message (RFC 9110, 7.6.1), and whom it goes to.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where a request goes, and the request that may leave for there.
pub(super) fn checked(request: Request<Body>) -> Result<(Destination, Request<Body>), EgressError> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT || parts.headers.contains_key(header::UPGRADE) {
        return Err(EgressError::Method(if parts.method == Method::CONNECT { "CONNECT" } else { "an upgrade" }.into()));
    }
    let scheme = parts.uri.scheme_str().unwrap_or_default();
    let authority = parts.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let to = Destination::parse(scheme, authority)?;
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let bytes = path.as_str().len();
    if bytes > URL_BYTES_MAX {
        return Err(EgressError::Url { bytes, max: URL_BYTES_MAX });
    }
    parts.uri = url(&to, path)?;
    parts.version = Version::HTTP_11;
    strip(&mut parts.headers);
    let host = HeaderValue::try_from(to.authority()).map_err(|error| protocol(&to, error.to_string()))?;
    parts.headers.insert(header::HOST, host);
    parts.extensions.clear();
    Ok((to, Request::from_parts(parts, body)))
}

fn url(to: &Destination, path: PathAndQuery) -> Result<Uri, EgressError> {
    // A path in the form of a whole URL, or of `*`, would be read as another destination by some.
    let path = match path.as_str() {
        text if text.starts_with('/') => path,
        text if text.starts_with('?') => {
            PathAndQuery::try_from(format!("/{text}")).map_err(|error| protocol(to, error.to_string()))?
        }
        text => return Err(protocol(to, format!("{text:?} is not a path"))),
    };
    // The port is always written: a tunnel would take another one for that of `http`.
    let authority = format!("{}:{}", to.host, to.port);
    let built = Uri::builder().scheme(to.scheme.name()).authority(authority).path_and_query(path).build();
    built.map_err(|error| protocol(to, error.to_string()))
}

/// The answer without what was only said to us.
pub(super) fn answered<B>(mut response: Response<B>, to: &Destination) -> Result<Response<B>, EgressError> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(protocol(to, "it switches to another protocol, which nobody asked for".into()));
    }
    let bytes: usize =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES).sum();
    if bytes > HEAD_BYTES_MAX {
        return Err(protocol(to, format!("it answers {bytes} bytes of headers; at most {HEAD_BYTES_MAX} are taken")));
    }
    strip(response.headers_mut());
    response.extensions_mut().clear();
    Ok(response)
}

fn strip(headers: &mut HeaderMap) {
    // What `Connection` names belongs to the connection, too.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn protocol(to: &Destination, problem: String) -> EgressError {
    EgressError::Protocol { to: to.to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Empty};

    fn request(method: &str, uri: &str, headers: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut builder = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
    }

    #[test]
    fn the_url_and_the_host_are_made_of_what_was_checked() {
        let headers =
            [("host", "metadata.internal"), ("accept", "x"), ("connection", "close, x-secret"), ("x-secret", "y")];
        let (to, sent) = checked(request("GET", "HTTPS://API.Example.COM.:443?q=1", &headers)).unwrap();
        assert_eq!(to.to_string(), "https://api.example.com");
        assert_eq!(sent.uri().to_string(), "https://api.example.com:443/?q=1");
        let left: Vec<_> = sent.headers().iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        assert_eq!(left, ["accept: \"x\"", "host: \"api.example.com\""]);
        assert_eq!(sent.version(), Version::HTTP_11);
    }

    #[test]
    fn what_a_server_says_to_us_alone_goes_no_further() {
        let to = "https://example.com".parse().unwrap();
        let response = |status: u16, headers: &[(&'static str, &str)]| {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            builder.body(()).unwrap()
        };
        let headers = [("connection", "close, x-hop"), ("x-hop", "1"), ("proxy-authenticate", "Basic"), ("etag", "2")];
        let told = answered(response(200, &headers), &to).unwrap();
        assert_eq!(told.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
        assert!(answered(response(101, &[]), &to).is_err(), "nobody asked for another protocol");
        let long = "x".repeat(HEAD_BYTES_MAX / 2);
        assert!(answered(response(200, &[("a", &long)]), &to).is_ok());
        assert!(answered(response(200, &[("a", &long), ("b", &long)]), &to).is_err());
    }

    #[test]
    fn tunnels_upgrades_and_odd_targets_don_t_leave() {
        let long = format!("https://example.com/{}", "x".repeat(URL_BYTES_MAX));
        for (method, uri, headers, code) in [
            ("CONNECT", "https://example.com", &[][..], "egress.method_refused"),
            ("GET", "https://example.com", &[("upgrade", "websocket")], "egress.method_refused"),
            ("GET", "https://user:password@example.com/", &[], "egress.bad_destination"),
            ("GET", "https://127.1/", &[], "egress.bad_destination"),
            ("GET", "/path", &[], "egress.bad_destination"),
            ("GET", "gopher://example.com/", &[], "egress.bad_destination"),
            ("GET", &long, &[], "egress.url_too_long"),
            ("OPTIONS", "*", &[], "egress.bad_destination"),
        ] {
            let refused = checked(request(method, uri, headers)).map(|(to, _)| to).unwrap_err();
            assert_eq!(refused.code(), code, "{method} {uri}");
        }
    }
}
