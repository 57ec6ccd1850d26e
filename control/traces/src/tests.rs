//! Which requests get a span, and what is in it.

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Spans that stay here, with that ratio.
fn kept(ratio: f64) -> (Traces, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    (Traces::of(SdkTracerProvider::builder().with_simple_exporter(exporter.clone()), ratio), exporter)
}

fn told(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([(TRACEPARENT.parse().unwrap(), traceparent.parse().unwrap())])
}

fn from_client(flags: &str) -> HeaderMap {
    told(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"))
}

fn get(traces: &Traces, headers: &HeaderMap) -> Option<RequestSpan> {
    traces.received(&Method::GET, headers, None)
}

/// How many of so many requests get a span.
fn count(ratio: f64, headers: &HeaderMap, requests: usize) -> usize {
    let (traces, _) = kept(ratio);
    (0..requests).filter(|_| get(&traces, headers).is_some()).count()
}

fn only(exporter: &InMemorySpanExporter) -> SpanData {
    let mut spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 1);
    spans.remove(0)
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let mut found = span.attributes.iter().filter(|attribute| attribute.key.as_str() == name);
    let value = found.next().map(|attribute| attribute.value.to_string());
    assert!(found.next().is_none(), "{name} twice");
    value
}

#[test]
fn a_request_of_a_clients_trace_is_in_it_and_says_so_to_whom_it_goes_next() {
    let (traces, exporter) = kept(1.0);
    let mut headers = from_client("01");
    headers.insert("tracestate", "rojo=1".parse().unwrap());
    let span = get(&traces, &headers).unwrap();
    let (passed_on, begins) = (span.traceparent(), span.begins_trace());
    drop(span);

    let span = only(&exporter);
    assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(passed_on, format!("00-{TRACE}-{}-01", span.span_context.span_id()));
    assert!(!begins);
    assert_eq!(span.span_context.trace_state().header(), "", "that is for whom the request goes to");
}

#[test]
fn a_request_without_a_trace_or_with_a_broken_one_begins_one() {
    let mut twice = from_client("01");
    twice.append(TRACEPARENT, twice[TRACEPARENT].clone());
    let broken = ["00-forged-00f067aa0ba902b7-01", "00-1-1-01", "0-1-1-1", "00-+1-+1-01", ""].map(told);
    for headers in broken.into_iter().chain([HeaderMap::new(), twice]) {
        let (traces, exporter) = kept(1.0);
        assert!(get(&traces, &headers).unwrap().begins_trace(), "{headers:?}");
        let span = only(&exporter);
        assert!(span.span_context.is_valid() && span.parent_span_id == SpanId::INVALID, "{headers:?}");
        assert_ne!(span.span_context.trace_id().to_string(), TRACE);
    }
}

#[test]
fn a_trace_that_its_client_does_not_record_has_no_span() {
    assert_eq!(count(1.0, &from_client("00"), 100), 0);
}

#[test]
fn a_client_has_no_more_spans_made_than_the_ratio_by_whatever_it_says() {
    // By its id this one is among the first to be recorded.
    let chosen = told("00-00000000000000000000000000000001-00f067aa0ba902b7-01");
    for headers in [HeaderMap::new(), from_client("01"), chosen] {
        assert_eq!(count(0.0, &headers, 100), 0);
        assert_eq!(count(1.0, &headers, 100), 100);
        let spans = count(0.25, &headers, 10_000);
        // Seven standard deviations (43) of the binomial distribution.
        assert!((2_200..=2_800).contains(&spans), "{spans} with {headers:?}");
    }
}

#[test]
fn a_span_has_the_names_of_the_conventions() {
    let (traces, exporter) = kept(1.0);
    let session = Uuid::from_u128(7);
    let mut span = traces.received(&Method::POST, &HeaderMap::new(), Some("/renter/access/{id}")).unwrap();
    span.admitted(session);
    span.provider_answered();
    span.answered(404);
    drop(span);

    let span = only(&exporter);
    assert_eq!(span.name, "POST /renter/access/{id}");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(attribute(&span, "http.request.method").unwrap(), "POST");
    assert_eq!(attribute(&span, "http.route").unwrap(), "/renter/access/{id}");
    assert_eq!(attribute(&span, "http.response.status_code").unwrap(), "404");
    assert_eq!(attribute(&span, "runit.session.id").unwrap(), session.to_string());
    assert_eq!(attribute(&span, "error.type"), None);
    assert_eq!(span.status, Status::Unset, "a client's mistake is no error of the server's");
    let moments: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert_eq!(moments, ["admitted", "provider answered"]);
}

#[test]
fn how_a_request_ended_is_in_its_span_once() {
    type End = fn(&mut RequestSpan);
    let ends: [(End, Option<&str>, Status); 6] = [
        (|span| span.answered(200), None, Status::Unset),
        (|span| span.answered(502), Some("502"), Status::error("")),
        (|_| {}, Some("unanswered"), Status::Unset),
        (|span| (span.answered(200), span.failed("ReadError")).1, Some("ReadError"), Status::error("")),
        (|span| (span.failed("ConnectRefused"), span.answered(502)).1, Some("ConnectRefused"), Status::error("")),
        (|span| span.cut_short("released"), Some("released"), Status::Unset),
    ];
    for (end, kind, status) in ends {
        let (traces, exporter) = kept(1.0);
        let mut span = get(&traces, &HeaderMap::new()).unwrap();
        end(&mut span);
        drop(span);
        let span = only(&exporter);
        assert_eq!(attribute(&span, "error.type").as_deref(), kind);
        assert_eq!(span.status, status, "{kind:?}");
    }
}

#[test]
fn a_method_of_somebodys_own_is_not_repeated() {
    let (traces, exporter) = kept(1.0);
    drop(traces.received(&Method::from_bytes(b"SECRET").unwrap(), &HeaderMap::new(), None));
    let span = only(&exporter);
    assert_eq!(span.name, "HTTP");
    assert_eq!(attribute(&span, "http.request.method").unwrap(), "_OTHER");
}

#[test]
fn without_a_collector_there_is_no_span() {
    let traces = Traces::start(&runit_config::Traces::default(), "runit").unwrap();
    assert!(get(&traces, &from_client("01")).is_none());
    traces.stop();
}
