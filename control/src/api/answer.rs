//! What goes around every answer: headers that keep browsers careful, a count in the metrics, the trace it belongs to.
//!
//! All of it in one layer. For each layer a router copies what is below it, with each request anew.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runit_config::LiveSettings;
use runit_core::trace::{TRACEPARENT, TraceId};
use runit_traces::{RequestSpan, Traces};
use tracing::Instrument;

use super::origin;
use super::problem::{Problem, ProblemCode};
use crate::control::Control;
use crate::metrics::Metrics;

/// For answers that say nothing else. An API answer is no document: nothing may be loaded from it or framed.
const DEFAULTS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// Asked all the time, by machines: they have no spans.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Around the API, which browsers come to: a foreign page changes nothing.
pub(super) async fn to_everybody(State(control): State<Control>, request: Request, next: Next) -> Response {
    let asked = Asked::of(&request, &control.traces);
    let answering = async {
        if origin::is_foreign(&control, &request) {
            return Problem::ForeignOrigin.into_response();
        }
        next.run(request).await
    };
    let mut response = asked.answered(&control.metrics, answering).await;
    add_hsts(&control.settings, &mut response);
    response
}

/// Around the admin API.
pub(crate) async fn to_operators(State(control): State<Control>, request: Request, next: Next) -> Response {
    Asked::of(&request, &control.traces).answered(&control.metrics, next.run(request)).await
}

/// What is known of a request before it is answered.
struct Asked {
    route: Option<MatchedPath>,
    trace: Option<TraceId>,
    span: Option<RequestSpan>,
}

impl Asked {
    fn of(request: &Request, traces: &Traces) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let template = route.as_ref().map(MatchedPath::as_str);
        let told_of = template.is_none_or(|route| !PROBES.contains(&route));
        let span = told_of.then(|| traces.received(request.method(), request.headers(), template)).flatten();
        let ours = span.as_ref().map(RequestSpan::traceparent);
        let trace = ours.as_ref().or(request.headers().get(TRACEPARENT));
        let trace = trace.and_then(|field| TraceId::of(field.as_bytes()));
        Self { route, trace, span }
    }

    async fn answered(self, metrics: &Metrics, answering: impl Future<Output = Response>) -> Response {
        let Self { route, trace, span } = self;
        let counted = async {
            let mut response = answering.await;
            for (name, value) in DEFAULTS {
                response.headers_mut().entry(name).or_insert(value);
            }
            let (route, status) = (route.as_ref().map_or("unknown", MatchedPath::as_str), response.status().as_u16());
            if let Some(mut span) = span {
                span.answered(status);
            }
            metrics.request(route, status);
            tracing::debug!(route, status, "answered");
            if let Some(ProblemCode(code)) = response.extensions().get() {
                metrics.problem(code);
            }
            response
        };
        // Whatever is logged for a request of a trace names the trace.
        match trace {
            Some(trace) => counted.instrument(tracing::info_span!("request", %trace)).await,
            None => counted.await,
        }
    }
}

/// What browsers are told of `https://` (RFC 6797), where it is how they come here.
fn add_hsts(settings: &LiveSettings, response: &mut Response) {
    let settings = settings.load();
    let seconds = settings.gateway.hsts_seconds;
    if settings.control.public_url.scheme() == "https" && seconds > 0 {
        let hsts = HeaderValue::try_from(format!("max-age={seconds}")).expect("digits");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_line_of_a_request_names_its_trace() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        let _log = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
        let trace = TraceId::of(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let answering = async {
            tracing::info!("under way");
            Problem::NotFound.into_response()
        };
        Asked { route: None, trace, span: None }.answered(&Metrics::new().expect("names"), answering).await;
        let log = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains("under way") && log.contains("answered"), "{log}");
        assert!(log.lines().all(|line| line.contains("4bf92f3577b34da6a3ce929d0e0e4736")), "{log}");
    }
}
