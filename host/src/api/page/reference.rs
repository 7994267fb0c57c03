//! The API's reference: its document for people, and what each code of a problem means.

use axum::extract::State;
use maud::{Markup, html};
use serde_json::Value as Json;

use super::layout::inside;
use super::{Page, Served, page};
use crate::api::error::{CODES, Otherwise};
use crate::api::extract::Principal;

/// The page: the API
#[utoipa::path(get, path = "/api/v1/reference", tag = "page", security(("bearer" = ["read"])), responses((status = 200, body = String, content_type = "text/html"), Otherwise))]
pub(in crate::api) async fn get(State(app): Served, who: Principal) -> Page {
    let document: Json = serde_json::from_str(&app.document).unwrap_or_default();
    let operations = operations(&document);
    let body = html! {
        h1 { "The HTTP API" }
        p { (text(&document["info"], "description")) }
        p { a href="/api/v1/openapi.json" { "The same for programs, in OpenAPI 3.1" } }
        h2 id="operations" { "Operations" }
        p { "Bodies are JSON; members with a question mark may be left out." }
        div class="wide" tabindex="0" role="region" aria-labelledby="operations" {
            table {
                thead { tr { th scope="col" { "Operation" } th scope="col" { "Role" } th scope="col" { "What it does" } th scope="col" { "Parameters" } th scope="col" { "Body" } } }
                tbody { @for (method, path, operation) in &operations { (row(method, path, operation, &body_of(&document, operation))) } }
            }
        }
        h2 id="problems" { "Codes of problems" }
        dl { @for (code, what) in CODES { dt id={ "problem-" (code) } { code { (code) } } dd { (what) } } }
    };
    Ok(page(&inside("The HTTP API", "", &who, &body)))
}

/// What can be asked that is not a page, in the order of the document.
fn operations(document: &Json) -> Vec<(String, &String, &Json)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if operation["tags"][0] != "page" {
                all.push((method.to_uppercase(), path, operation));
            }
        }
    }
    all
}

fn text<'a>(of: &'a Json, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_default()
}

/// The members of the body that an operation takes, by what each is, and whether it has to be there.
fn body_of<'a>(document: &'a Json, operation: &'a Json) -> Vec<(&'a String, &'a str, bool)> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let named = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let schema = named.map_or(schema, |name| &document["components"]["schemas"][name]);
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let members = schema["properties"].as_object().into_iter().flatten();
    members.map(|(name, one)| (name, text(one, "description"), required.contains(&name.as_str()))).collect()
}

fn row(method: &str, path: &str, operation: &Json, body: &[(&String, &str, bool)]) -> Markup {
    let parameters = operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] != "path");
    html! {
        tr {
            th scope="row" { code { (method) " " (path) } }
            td { (operation["security"][0]["bearer"][0].as_str().unwrap_or("anybody")) }
            td { (text(operation, "summary")) @let more = text(operation, "description"); @if !more.is_empty() { br; small { (more) } } }
            td { @for (at, one) in parameters.enumerate() { @if at > 0 { ", " } code title=(text(one, "description")) { (text(one, "name")) } } }
            td { @for (at, (name, what, required)) in body.iter().enumerate() { @if at > 0 { ", " } code title=(what) { (name) } @if !required { "?" } } }
        }
    }
}
