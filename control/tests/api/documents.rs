//! The OpenAPI documents: each call in them is there, nothing else is, and whatever is answered is described.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::app::{Client, TestApp};

/// What paths stand for, for one who knows nothing.
fn filled(path: &str) -> String {
    ["{id}", "{token}", "{file}", "{name}"]
        .iter()
        .fold(path.to_owned(), |path, variable| path.replace(variable, "00000000-0000-4000-8000-000000000009"))
}

/// Asks for each documented path with each method; answers how many calls are documented.
async fn held_to(client: &Client, document: &Value) -> usize {
    assert_eq!(document["openapi"], "3.1.0");
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let operation = &item[method.as_str().to_lowercase()];
            let answer = client.open_as(method.clone(), &filled(path)).await;
            let status = answer.status().as_u16();
            if operation.is_null() {
                assert_eq!(status, 405, "{method} {path} is not documented, and there");
                assert!(answer.headers().contains_key("allow"), "{method} {path}");
                continue;
            }
            calls += 1;
            let described = &operation["responses"][status.to_string()];
            assert!(!described.is_null(), "{method} {path} answers {status}, which is not documented");
            let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
            match (kind, described["content"].as_object()) {
                (Some(kind), Some(kinds)) => {
                    let kind = kind.split(';').next().unwrap();
                    assert!(kinds.contains_key(kind), "{method} {path} answers {status} with {kind}");
                    if kind == "application/json" && status >= 400 {
                        let code = answer.json::<Value>().await.unwrap()["code"].clone();
                        let codes = &described["content"][kind]["schema"]["properties"]["code"]["enum"];
                        assert!(codes.as_array().unwrap().contains(&code), "{method} {path} answers {status} {code}");
                    }
                }
                (None, None) => {}
                (kind, kinds) => panic!("{method} {path} answers {status} with {kind:?}; documented is {kinds:?}"),
            }
        }
    }
    calls
}

#[tokio::test]
async fn each_listener_answers_as_its_document_says() {
    let app = TestApp::start().await;
    for (client, calls) in [(app.client(1), 31), (app.operator(), 25)] {
        let document = client.get("/openapi.json").await.expect(200);
        assert_eq!(held_to(&client, &document).await, calls);
        for (_, item) in document["paths"].as_object().unwrap() {
            for (_, operation) in item.as_object().unwrap() {
                for (_, response) in operation["responses"].as_object().unwrap() {
                    assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{operation}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_documents_are_pages_without_scripts_and_styles() {
    let app = TestApp::start().await;
    for (client, call) in
        [(app.client(1), "PUT /provider/session/{id}/tunnel"), (app.operator(), "POST /admin/v1/sessions/{id}/cut")]
    {
        let page = client.get("/openapi").await;
        page.expect_status(200);
        assert!(page.text.contains(call), "{}", page.text);
        assert!(!page.text.contains("<script") && !page.text.contains("style="));
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("http") && !policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn the_gateways_document_is_shown_where_there_is_a_gateway() {
    let app = TestApp::start().await;
    for path in ["/openapi/gateway.json", "/openapi/gateway"] {
        app.client(1).get(path).await.expect_problem(404, "not found", "not_found");
    }
    let document = json!({ "info": { "title": "RUNIT gateway" }, "paths": {
        "/s/{sessionId}": { "get": { "summary": "Jupyter.", "responses": { "401": { "description": "No." } } } },
    } });
    let app = app.beside_gateway(&document).await;
    assert_eq!(app.client(1).get("/openapi/gateway.json").await.expect(200), document);
    let page = app.client(1).get("/openapi/gateway").await;
    assert!(page.text.contains("GET /s/{sessionId}") && page.text.contains("/openapi/gateway.json"), "{}", page.text);
}

#[tokio::test]
async fn operations_have_names_of_their_own() {
    let app = TestApp::start().await;
    for client in [app.client(1), app.operator()] {
        let document = client.get("/openapi.json").await.expect(200);
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has none"));
                assert!(names.insert(name.to_owned()), "{name} twice");
            }
        }
    }
}
