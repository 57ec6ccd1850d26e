//! The OpenAPI 3.1 document, put together from what the handlers say of themselves and from the table of problems.
//!
//! A route names the [`Problem`]s that it may answer with ([`refusing`], [`refusing_all`]); status, code and text of each
//! come from the table, so a refusal that a route does not name is one that the document does not know.

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::{InfoBuilder, License, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::api::problem::Problem;

/// Where a document under construction keeps what an operation refuses.
const PROBLEMS: &str = "x-problems";

/// These routes, with what they may be refused for.
pub(crate) fn refusing<S>(mut routes: UtoipaMethodRouter<S>, problems: &[Problem]) -> UtoipaMethodRouter<S> {
    note(&mut routes.1, problems);
    routes
}

/// All routes of a router, with what each of them may be refused for.
pub(crate) fn refusing_all<S>(mut router: OpenApiRouter<S>, problems: &[Problem]) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    note(&mut router.get_openapi_mut().paths, problems);
    router
}

fn note(paths: &mut Paths, problems: &[Problem]) {
    for operation in paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
    }) {
        note_one(operation, problems);
    }
}

fn note_one(operation: &mut Operation, problems: &[Problem]) {
    let noted = operation.extensions.get_or_insert_default();
    for problem in problems {
        let (status, code, text) = problem.row();
        // One key for each: extensions of the same name would replace each other.
        let told = json!({ "status": status.as_u16(), "code": code, "text": text });
        noted.insert(format!("{PROBLEMS}-{code}"), told);
    }
}

/// The document of an interface that is served at `server`.
pub(crate) fn document(mut api: OpenApi, title: &str, description: &str, server: &str) -> Value {
    api.info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let mut document = serde_json::to_value(api).expect("a document of texts, lists and maps");
    document["servers"] = json!([{ "url": server }]);
    document["components"]["securitySchemes"] = json!({
        "operator": { "type": "http", "scheme": "bearer", "description": "An operator's key" },
        "provider": { "type": "http", "scheme": "bearer", "description": "The secret that a session was registered with" },
        "renter": { "type": "http", "scheme": "bearer", "description": "An access token" },
    });
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut).filter_map(Value::as_object_mut);
    operations.for_each(tell_problems);
    document
}

/// A document as it is served, for programs and for people: made once, whoever asks and however often.
pub(crate) struct Description {
    json: Bytes,
    page: Bytes,
}

impl Description {
    /// Of a document that is served at `address`.
    pub(crate) fn new(document: &Value, address: &str) -> Self {
        Self { json: document.to_string().into(), page: page(document, address).into_string().into() }
    }

    pub(crate) fn json(&self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], self.json.clone()).into_response()
    }

    pub(crate) fn page(&self) -> Response {
        let policy =
            HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        ([(header::CONTENT_SECURITY_POLICY, policy)], Html(self.page.clone())).into_response()
    }
}

/// The document, which is served at `address`, as a page.
fn page(document: &Value, address: &str) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations: Vec<(String, &Value)> = paths
        .flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, of)| (path, method, of)))
        .filter(|(.., operation)| operation["responses"].is_object())
        .map(|(path, method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        .collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (text(&document["info"]["title"])) }
            }
            body {
                h1 { (text(&document["info"]["title"])) }
                p { (text(&document["info"]["description"])) " " a href=(address) { "The same as OpenAPI 3.1" } "." }
                ul { @for (index, (name, _)) in operations.iter().enumerate() {
                    li { a href={ "#" (index) } { code { (name) } } }
                } }
                @for (index, (name, operation)) in operations.iter().enumerate() {
                    (operation_section(index, name, operation))
                }
                h2 { "Shapes" }
                @for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                    h3 id=(name) { (name) }
                    pre { (format!("{schema:#}")) }
                }
            }
        }
    }
}

fn operation_section(index: usize, name: &str, operation: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shape = |content: &Value| {
        content
            .as_object()
            .into_iter()
            .flatten()
            .map(|(kind, of)| format!("{kind}: {}", of["schema"]))
            .collect::<Vec<_>>()
    };
    html! {
        h2 id=(index) { code { (name) } }
        p { (text(&operation["summary"])) " " (text(&operation["description"])) }
        @if let Some(parameters) = operation["parameters"].as_array() {
            dl { @for parameter in parameters {
                dt { code { (text(&parameter["name"])) } " in " (text(&parameter["in"])) }
                dd { (text(&parameter["description"])) " " code { (parameter["schema"]) } }
            } }
        }
        @for body in shape(&operation["requestBody"]["content"]) { p { "Body " code { (body) } } }
        dl { @for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            dt { (status) }
            dd { (text(&response["description"])) @for body in shape(&response["content"]) { br; code { (body) } } }
        } }
    }
}

/// Turns what was noted of an operation into responses: one for each status, with the codes that it may have.
fn tell_problems(operation: &mut Map<String, Value>) {
    let noted: Vec<String> = operation.keys().filter(|key| key.starts_with(PROBLEMS)).cloned().collect();
    let mut problems: Vec<Value> = noted.iter().filter_map(|key| operation.remove(key)).collect();
    problems.sort_by_key(|problem| problem["code"].as_str().map(str::to_owned));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for status in problems.iter().filter_map(|problem| problem["status"].as_u64()).collect::<Vec<_>>() {
        let mine: Vec<&Value> = problems.iter().filter(|problem| problem["status"] == status).collect();
        responses.entry(status.to_string()).or_insert_with(|| refusal(status, &mine));
    }
}

fn refusal(status: u64, problems: &[&Value]) -> Value {
    let all = |field: &str| problems.iter().map(|problem| problem[field].clone()).collect::<Vec<_>>();
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let text = |field: &str| problem[field].as_str().unwrap_or_default();
            format!("`{}`: {}", text("code"), text("text"))
        })
        .collect();
    let mut told = json!({
        "description": texts.join("; "),
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["error", "code"],
            "properties": {
                "error": { "type": "string", "enum": all("text") },
                "code": { "type": "string", "enum": all("code") },
                "detail": { "type": "string", "description": "What is wrong with which field" },
            },
        } } },
    });
    if status == 429 {
        let schema = json!({ "type": "string", "pattern": "^[0-9]+$" });
        told["headers"] =
            json!({ "Retry-After": { "description": "In seconds", "required": false, "schema": schema } });
    }
    told
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::Router;
    use runit_config::NodeSettings;
    use tokio::sync::watch;

    use super::*;
    use crate::api::{self, LiveList};
    use crate::clock::SystemClock;
    use crate::{Control, admin};

    /// The paths that a router knows, which it tells in its `Debug` only.
    fn routed(router: &Router) -> BTreeSet<String> {
        let told = format!("{router:?}");
        let texts = told.split('"').filter(|text| text.starts_with('/') && !text.contains("__private"));
        texts.map(str::to_owned).collect()
    }

    fn documented(document: &Value) -> BTreeSet<String> {
        document["paths"].as_object().expect("paths").keys().cloned().collect()
    }

    #[test]
    fn every_route_is_in_its_document_and_nothing_else_is() {
        let data = tempfile::tempdir().expect("a directory");
        let mut settings = NodeSettings::default();
        settings.control.data_dir = data.path().to_owned();
        let control = Control::open(&settings, Arc::new(SystemClock::start())).expect("a new store");
        let (_stopping, stop) = watch::channel(false);
        let live = LiveList::new(stop.clone());
        let routers = [
            (api::router(control.clone(), live), api::openapi()),
            (admin::router(control, Vec::new(), stop), admin::openapi()),
        ];
        for (router, document) in routers {
            let paths = documented(&document);
            assert!(paths.len() > 15, "{paths:?}");
            assert_eq!(routed(&router), paths);
        }
    }
}
