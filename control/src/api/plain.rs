//! The renter's page without JavaScript: the same list, and a form for each session.
//!
//! The answer to the form is a page with the link, not a redirect: browsers hold a form's redirects to its policy, too,
//! and the gateway is another origin.

use axum::Form;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use super::pages::POLICY;
use super::problem::Problem;
use super::renter::access_url;
use crate::rental::Listed;

/// More than anybody reads through; the page with JavaScript has a search.
const SHOWN: usize = 500;

/// What the page's form sends.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlainWanted {
    #[schema(format = Uuid)]
    session_id: String,
}

/// The renter's page without JavaScript.
#[utoipa::path(get, path = "/renter/plain", operation_id = "plainPage", tag = "pages",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn list(State(api): State<Api>) -> Response {
    let ready = api.control.ready();
    page(html! {
        h2 { "Free sessions" }
        @match ready.len() {
            0 => p { "No session is free at the moment. " a href="/renter/plain" { "Look again" } "." },
            1 => p { "1 session is free." },
            count => p { (count) " sessions are free." @if count > SHOWN { " The " (SHOWN) " that wait longest are shown." } },
        }
        ul id="sessions" { @for session in ready.iter().take(SHOWN) { (item(session)) } }
    })
}

/// What its forms are answered with: a page with the hand-over link, or one that says who was faster.
#[utoipa::path(post, path = "/renter/plain", operation_id = "plainRequest", tag = "pages",
    request_body(content = PlainWanted, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(super) async fn connect(
    State(api): State<Api>,
    form: Result<Form<PlainWanted>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(wanted) = form.map_err(|error| Problem::InvalidPayload(error.body_text()))?;
    let wanted = wanted.session_id.parse().map_err(|_| Problem::NoSessions)?;
    Ok(match api.control.grant(Some(wanted)).await {
        Ok(granted) => page(html! {
            section id="rental" {
                h2 { "Your session" }
                p { "It is yours with the first use of this link, and until a minute after the last." }
                div class="actions" {
                    a class="button" href=(access_url(&api, &granted.token)) target="_blank" rel="noopener"
                        referrerpolicy="strict-origin" { "Open JupyterLab" }
                }
                p { "Token for other Jupyter clients at this address: " code { (granted.token.expose()) } }
            }
            p { a href="/renter/plain" { "Back to the list" } }
        }),
        Err(Problem::NoSessions) => page(html! {
            p { "Somebody was faster: this session is taken. " a href="/renter/plain" { "Pick another one" } "." }
        }),
        Err(problem) => return Err(problem),
    })
}

fn item(session: &Listed) -> Markup {
    let facts = [("hardware", &session.hardware), ("price", &session.pricing)].map(|(name, json)| facts(name, json));
    let gpu = facts[0].iter().find(|(key, _)| key == "gpu");
    let name = gpu.map_or("Notebook", |(_, value)| value);
    let id = session.session_id.to_string();
    html! {
        li {
            h3 id={ "heading-" (id) } { (name) }
            dl { @for (key, value) in facts.iter().flatten() { dt { (key) } dd { (value) } } }
            form method="post" action="/renter/plain" {
                input type="hidden" name="sessionId" value=(id);
                button aria-describedby={ "heading-" (id) } { "Connect" }
            }
        }
    }
}

/// What a provider says, any JSON, as names and values.
fn facts(name: &str, said: &Option<Box<RawValue>>) -> Vec<(String, String)> {
    match said.as_ref().and_then(|json| serde_json::from_str(json.get()).ok()) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(facts)) => facts.into_iter().map(|(key, value)| (key, text(&value))).collect(),
        Some(other) => vec![(name.to_owned(), text(&other))],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn page(main: Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="same-origin";
                title { "RUNIT: rent a notebook" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/renter/style.css";
            }
            body {
                header {
                    h1 { "Rent a notebook" }
                    p { "This is the page without JavaScript; JupyterLab itself needs it." }
                }
                main { (main) }
            }
        }
    };
    // With `no-referrer` browsers send the forms with `Origin: null`.
    let referrer = HeaderValue::from_static("same-origin");
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::REFERRER_POLICY, referrer)];
    (headers, Html(page.into_string())).into_response()
}
