//! The OpenAPI 3.1 document of the gateway's own interface: the hand-over link, and the sessions behind it.
//!
//! What it refuses, and with what, comes from the table of refusals. What a session's Jupyter answers is Jupyter's to
//! describe: here it is the `default` answer.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::answer::Refusal;

const ABOUT: &str = "What a renter's browser and programs ask of the gateway. A refusal is JSON, or a page where `Accept` \
                     names `text/html`. Where rentals have host names of their own, a session is at \
                     `<label>.<sessions host>`, with the same paths.";
const LINK: &str = "/access/{token}";
const SESSION: &str = "/s/{sessionId}";
const PLACE: &str = "/s/{sessionId}/{path}";
/// HEAD is answered as GET is, without the body.
const METHODS: [&str; 6] = ["get", "post", "put", "patch", "delete", "options"];

/// Where a refusal can be met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Everywhere,
    Link,
    Session,
}

/// The document.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    let parameter = |name: &str, about: &str, schema: Value| json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema });
    let text = json!({ "type": "string" });
    let some_token = json!({ "type": "string", "examples": ["67e55044-10b1-426f-9247-bb680e5fe0c8"] });
    let token = parameter("token", "An access token, or the ticket that it was changed for", some_token);
    let session = parameter("sessionId", "The session", json!({ "type": "string", "format": "uuid" }));
    let place = parameter("path", "A path of Jupyter's, with its slashes", text);
    paths.insert(LINK.into(), link(&token));
    let sessions: Map<String, Value> = METHODS.iter().map(|&method| (method.into(), inside(method))).collect();
    for (path, what, parameters) in
        [(SESSION, "Session", json!([session])), (PLACE, "InSession", json!([session, place]))]
    {
        let mut item = sessions.clone();
        for (method, operation) in &mut item {
            operation["operationId"] = format!("{method}{what}").into();
            operation["parameters"] = parameters.clone();
        }
        paths.insert(path.into(), item.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "RUNIT gateway", "description": ABOUT, "version": env!("CARGO_PKG_VERSION"),
                  "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "securitySchemes": {
            "bearer": { "type": "http", "scheme": "bearer", "description": "An access token; also `token` for `Bearer`" },
            "query": { "type": "apiKey", "in": "query", "name": "token", "description": "An access token" },
            "cookie": { "type": "apiKey", "in": "cookie", "name": "runit-<sessionId>",
                        "description": "What the hand-over link has set" },
        } },
    })
}

fn link(token: &Value) -> Value {
    let led = json!({
        "description": "The session is the caller's: to JupyterLab, with a cookie and without the token",
        "headers": { "Location": { "schema": { "type": "string" } }, "Set-Cookie": { "schema": { "type": "string" } } },
    });
    let asked = json!({
        "description": "A page that asks whether the link is meant: the browser says that another site has led to it, or \
                        that it fetches ahead",
        "content": { "text/html": { "schema": { "type": "string" } } },
    });
    let mut opening = refusals(At::Link);
    opening.insert("302".into(), led.clone());
    opening.insert("200".into(), asked);
    let mut confirming = refusals(At::Link);
    confirming.insert("302".into(), led);
    json!({
        "get": { "operationId": "openLink", "tags": ["link"], "parameters": [token], "responses": opening,
                 "summary": "The hand-over link. The first use takes the session for the caller's address." },
        "post": { "operationId": "confirmLink", "tags": ["link"], "parameters": [token], "responses": confirming,
                  "summary": "The same, pressed on the gateway's own page; moves the lock where its cookie comes from \
                              another address." },
    })
}

fn inside(method: &str) -> Value {
    let mut responses = refusals(At::Session);
    responses.insert(
        "default".into(),
        json!({ "description": "What the session's Jupyter answers, with any status, also those above" }),
    );
    if method == "get" {
        responses.insert("101".into(), json!({ "description": "A WebSocket, where one was asked for (RFC 6455)" }));
    }
    responses.insert(
        "302".into(),
        json!({
            "description": "A page opened with `?token=`, to itself without it and with a cookie; or to a path's missing slash",
            "headers": { "Location": { "schema": { "type": "string" } } },
        }),
    );
    json!({
        "tags": ["session"],
        "summary": "Jupyter, behind token (or cookie) and address.",
        "security": [{ "bearer": [] }, { "query": [] }, { "cookie": [] }],
        "responses": responses,
    })
}

/// One answer for each status, with the codes that it may have.
fn refusals(at: At) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Refusal>> = BTreeMap::new();
    for refusal in Refusal::ALL.into_iter().filter(|&refusal| [At::Everywhere, at].contains(&met(refusal))) {
        by_status.entry(refusal.row().0.as_u16()).or_default().push(refusal);
    }
    by_status.into_iter().map(|(status, refusals)| (status.to_string(), answer(&refusals))).collect()
}

fn answer(refusals: &[Refusal]) -> Value {
    let mut texts: Vec<String> =
        refusals.iter().map(|refusal| format!("`{}`: {}", refusal.row().1, refusal.row().2)).collect();
    texts.dedup();
    let all = |column: fn(&Refusal) -> &'static str| {
        let mut values: Vec<&str> = refusals.iter().map(column).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let mut told = json!({
        "description": texts.join("; "),
        "content": {
            "application/json": { "schema": {
                "type": "object",
                "required": ["error", "code"],
                "properties": {
                    "error": { "type": "string", "enum": all(|refusal| refusal.row().2) },
                    "code": { "type": "string", "enum": all(|refusal| refusal.row().1) },
                },
            } },
            "text/html": { "schema": { "type": "string" } },
        },
    });
    if refusals.iter().any(|refusal| refusal.retry_after().is_some()) {
        let schema = json!({ "type": "string", "pattern": "^[0-9]+$" });
        told["headers"] =
            json!({ "Retry-After": { "description": "In seconds", "required": false, "schema": schema } });
    }
    told
}

const fn met(refusal: Refusal) -> At {
    use runit_core::Rejection::{AddressMismatch, AlreadyInUse, InvalidToken, NoCredential};
    match refusal {
        Refusal::BadRequest
        | Refusal::HeadTooLarge
        | Refusal::MethodNotAllowed
        | Refusal::ExpectationFailed
        | Refusal::NotFound
        | Refusal::WrongHost
        | Refusal::Rejected(InvalidToken | AlreadyInUse | AddressMismatch)
        | Refusal::RentalOver
        | Refusal::ForeignOrigin
        | Refusal::Misdirected
        | Refusal::TooManyRequests { .. }
        | Refusal::TooManyGuesses { .. }
        | Refusal::NodeFull
        | Refusal::AuthorityUnavailable => At::Everywhere,
        Refusal::LinkMethod | Refusal::TooManyReconnects { .. } => At::Link,
        Refusal::Rejected(NoCredential)
        | Refusal::ClosedPlace
        | Refusal::CapReached { .. }
        | Refusal::TooManyConnections
        | Refusal::TooManyWebSockets
        | Refusal::LedgerUnavailable
        | Refusal::UpstreamForbidden
        | Refusal::UpstreamFailed
        | Refusal::UpstreamBroken
        | Refusal::UpstreamTimedOut => At::Session,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::target::{self, Place, Target};

    const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    /// The document's path for a place.
    fn path_of(target: &Target) -> &'static str {
        match target {
            Target::Access(_) | Target::Ticket(_) => LINK,
            Target::Session(_, Place::MissingSlash) => SESSION,
            Target::Session(_, Place::Open | Place::Closed) => PLACE,
        }
    }

    #[test]
    fn each_place_is_in_the_document_and_each_path_of_the_document_is_a_place() {
        let document = openapi();
        let documented: BTreeSet<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        let read = |path: &str| {
            let filled = path.replace("{token}", ID).replace("{sessionId}", ID).replace("{path}", "api/contents/a");
            target::read(filled.as_bytes()).unwrap_or_else(|_| panic!("{filled} is no place"))
        };
        for path in &documented {
            assert_eq!(path_of(&read(path)), *path);
        }
        assert_eq!(documented, [LINK, SESSION, PLACE].into());
    }

    #[test]
    fn each_refusal_is_in_the_document() {
        let document = openapi().to_string();
        let table = include_str!("answer.rs").split("const fn retry_after").next().expect("the table comes first");
        let rows: Vec<&str> = table.match_indices("(S::").filter_map(|(at, _)| table[at..].split('"').nth(1)).collect();
        assert!(rows.len() > 20, "{rows:?}");
        for code in rows {
            assert!(document.contains(&format!("`{code}`: ")), "{code}");
        }
    }
}
