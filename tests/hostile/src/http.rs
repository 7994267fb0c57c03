//! Sends the requests that the setting `requests` lists, and says what came of each. A request is a URL, or a table with `url`, or with
//! `scheme`, `authority` and `path` as they are handed over; `method`, `headers`, `body`, `read` (bytes of the answer that are wanted),
//! `timeout-ms`.

use serde_json::Value as Json;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

use crate::setting;

/// What came of all, one line each.
pub(crate) fn fetch_all() -> String {
    let requests = setting("requests");
    if setting("at-once") == Json::Bool(true) {
        let sent: Vec<_> = requests.as_array().into_iter().flatten().map(send).collect();
        return lines(sent.into_iter().map(|sent| sent.and_then(|pending| received(&pending, usize::MAX))));
    }
    lines(requests.as_array().into_iter().flatten().map(fetch))
}

fn lines(answers: impl Iterator<Item = Result<String, String>>) -> String {
    answers.map(|answer| answer.unwrap_or_else(|error| error)).collect::<Vec<_>>().join("; ")
}

/// Sends one, and waits for its answer.
pub(crate) fn fetch(request: &Json) -> Result<String, String> {
    if let Some(ms) = request["give-up-ms"].as_u64() {
        let _pending = send(request)?;
        std::thread::sleep(std::time::Duration::from_millis(ms));
        return Ok("given up".into());
    }
    let wanted = request["read"].as_u64().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    received(&send(request)?, wanted)
}

fn send(request: &Json) -> Result<FutureIncomingResponse, String> {
    let text = |name: &str| request[name].as_str();
    let headers = Fields::new();
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        headers.append(name, value.as_bytes()).map_err(|error| format!("header {name}: {error:?}"))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    let (scheme, rest) = match request.as_str().or(text("url")) {
        Some(url) => url.split_once("://").ok_or("no URL")?,
        None => (text("scheme").unwrap_or("https"), ""),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let method = match text("method").unwrap_or("GET") {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.to_owned()),
    };
    outgoing.set_method(&method).map_err(|()| "method refused")?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| "scheme refused")?;
    outgoing.set_authority(Some(text("authority").unwrap_or(authority))).map_err(|()| "authority refused")?;
    let path = text("path").unwrap_or(if path.is_empty() { "/" } else { path });
    let path = path.replace("{long}", &"x".repeat(20_000));
    outgoing.set_path_with_query(Some(&path)).map_err(|()| "path refused")?;
    let options = RequestOptions::new();
    if let Some(timeout) = request["timeout-ms"].as_u64() {
        let nanos = Some(timeout.saturating_mul(1_000_000));
        let _ = options.set_connect_timeout(nanos);
        let _ = options.set_first_byte_timeout(nanos);
        let _ = options.set_between_bytes_timeout(nanos);
    }
    let body = outgoing.body().map_err(|()| "no body")?;
    let pending = handle(outgoing, Some(options)).map_err(|code| format!("refused {code:?}"))?;
    if let Some(text) = text("body") {
        let stream = body.write().map_err(|()| "no stream")?;
        stream.blocking_write_and_flush(text.as_bytes()).map_err(|error| format!("body: {error:?}"))?;
    }
    let _ = OutgoingBody::finish(body, None);
    Ok(pending)
}

fn received(pending: &FutureIncomingResponse, wanted: usize) -> Result<String, String> {
    pending.subscribe().block();
    let answer = pending.get().ok_or("not ready")?.map_err(|()| "taken")?;
    let answer = answer.map_err(|code| format!("refused {code:?}"))?;
    let status = answer.status();
    Ok(match body(answer, wanted) {
        Ok(body) if body.len() > 200 => format!("{status} {} bytes", body.len()),
        Ok(body) => format!("{status} {}", String::from_utf8_lossy(&body)),
        Err(problem) => format!("{status} {problem}"),
    })
}

fn body(answer: IncomingResponse, wanted: usize) -> Result<Vec<u8>, String> {
    let incoming = answer.consume().map_err(|()| "no body")?;
    let stream = incoming.stream().map_err(|()| "no stream")?;
    let mut all = Vec::new();
    while all.len() < wanted {
        match stream.blocking_read(65_536) {
            Ok(part) => all.extend(part),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                return Err(format!("broken off after {} bytes: {code:?}", all.len()));
            }
        }
    }
    Ok(all)
}

/// Fills a collection of headers.
pub(crate) fn fields_bomb() -> String {
    let headers = Fields::new();
    for number in 0..1_000_000 {
        if let Err(error) = headers.append(&format!("x-{number}"), &[b'x'; 1000]) {
            return format!("{number} headers: {error:?}");
        }
    }
    "no end".into()
}

/// Makes requests of words that are longer than any server takes.
pub(crate) fn words_bomb() -> String {
    let outgoing = OutgoingRequest::new(Fields::new());
    let long = "x".repeat(1_000_000);
    let method = outgoing.set_method(&Method::Other(long.clone()));
    let authority = outgoing.set_authority(Some(&long));
    format!("method: {method:?}, authority: {authority:?}")
}

/// Begins requests and never looks at them.
pub(crate) fn requests_bomb() -> String {
    let mut held = Vec::new();
    loop {
        held.push(send(&Json::from("http://127.0.0.1:1/")));
    }
}

/// Writes a body that nobody takes.
pub(crate) fn body_bomb() -> String {
    let outgoing = OutgoingRequest::new(Fields::new());
    let Ok(body) = outgoing.body() else { return "no body".into() };
    let Ok(stream) = body.write() else { return "no stream".into() };
    let mut written = 0_u64;
    loop {
        match stream.check_write() {
            Ok(0) => return format!("{written} bytes are taken"),
            Ok(room) => {
                let part = vec![b'x'; usize::try_from(room).unwrap_or(usize::MAX)];
                if let Err(error) = stream.write(&part) {
                    return format!("{written} bytes: {error:?}");
                }
                written += room;
            }
            Err(error) => return format!("{written} bytes: {error:?}"),
        }
    }
}
