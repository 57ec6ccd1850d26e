//! A small HTTP server in control's place: takes every call down and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

/// One call, as control got it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Method and path.
    pub(crate) line: String,
    /// The `Authorization` field.
    pub(crate) authorization: Option<String>,
    /// The `Runit-Provider-Key` field.
    pub(crate) provider_key: Option<String>,
    /// The body; null if it is not JSON.
    pub(crate) body: Value,
}

/// What to answer: status, fields, body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, fields: Vec::new(), body: body.to_string() }
    }

    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, fields: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

/// A server that records.
pub(crate) struct Server {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (taken, answer) = (Arc::clone(&calls), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (taken, answer) = (Arc::clone(&taken), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let (taken, answer) = (Arc::clone(&taken), Arc::clone(&answer));
                    async move { Ok::<_, hyper::Error>(serve(request, &taken, &*answer).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, calls }
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }
}

async fn serve(
    request: Request<Incoming>,
    taken: &Mutex<Vec<Call>>,
    answer: &(dyn Fn(&Call) -> Answer + Send + Sync),
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let field = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let call = Call {
        line: format!("{} {}", parts.method, parts.uri),
        authorization: field(header::AUTHORIZATION.as_str()),
        provider_key: field("runit-provider-key"),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let answer = answer(&call);
    taken.lock().expect("no panic").push(call);
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.fields {
        response = response.header(name, value);
    }
    response.body(Full::from(answer.body)).expect("an answer")
}
