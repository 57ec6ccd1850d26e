//! Which requests get a span, and what is in it.

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Spans that stay here, with that ratio.
fn kept(ratio: f64) -> (Traces, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    (Traces::of(SdkTracerProvider::builder().with_simple_exporter(exporter.clone()), ratio), exporter)
}

fn from_client(flags: &str) -> HeaderMap {
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
    HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())])
}

fn only(exporter: &InMemorySpanExporter) -> SpanData {
    let mut spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 1);
    spans.remove(0)
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

#[test]
fn a_request_of_a_clients_trace_is_in_it_and_says_so_to_whom_it_goes_next() {
    let (traces, exporter) = kept(1.0);
    let span = traces.received(&Method::GET, &from_client("01")).unwrap();
    let told = span.traceparent();
    span.answered(None, Some(200));

    let span = only(&exporter);
    assert_eq!(span.span_context.trace_id(), TraceId::from_hex(TRACE).unwrap());
    assert_eq!(span.parent_span_id, SpanId::from_hex("00f067aa0ba902b7").unwrap());
    assert_eq!(told, format!("00-{TRACE}-{}-01", span.span_context.span_id()));
}

#[test]
fn a_request_without_a_trace_or_with_a_broken_one_begins_one() {
    for traceparent in [None, Some("00-forged-00f067aa0ba902b7-01"), Some("00-00000000000000000000000000000000-0-01")] {
        let (traces, exporter) = kept(1.0);
        let headers = traceparent.map(|text| ("traceparent".parse().unwrap(), text.parse().unwrap()));
        traces.received(&Method::GET, &headers.into_iter().collect()).unwrap().answered(None, Some(200));
        let span = only(&exporter);
        assert!(span.span_context.is_valid() && span.parent_span_id == SpanId::INVALID, "{span:?}");
    }
}

#[test]
fn what_a_client_says_makes_fewer_spans_and_never_more() {
    let begun = |ratio, headers| kept(ratio).0.received(&Method::GET, &headers).is_some();
    assert!(begun(1.0, from_client("01")));
    assert!(!begun(1.0, from_client("00")), "its client does not record this trace");
    assert!(!begun(0.0, from_client("01")), "its client would have all of its traces recorded");
    assert!(!begun(0.0, HeaderMap::new()));
}

#[test]
fn a_ratio_is_kept_to() {
    let (traces, _) = kept(0.25);
    let begun = (0..10_000).filter(|_| traces.received(&Method::GET, &HeaderMap::new()).is_some()).count();
    // Seven standard deviations (43) of the binomial distribution.
    assert!((2_200..=2_800).contains(&begun), "{begun}");
}

#[test]
fn a_span_has_the_names_of_the_conventions() {
    let (traces, exporter) = kept(1.0);
    let session = Uuid::from_u128(7);
    let mut span = traces.received(&Method::POST, &HeaderMap::new()).unwrap();
    span.admitted(session);
    span.provider_answered();
    span.answered(Some("/renter/access/{id}"), Some(404));

    let span = only(&exporter);
    assert_eq!(span.name, "POST /renter/access/{id}");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(attribute(&span, "http.request.method").unwrap(), "POST");
    assert_eq!(attribute(&span, "http.route").unwrap(), "/renter/access/{id}");
    assert_eq!(attribute(&span, "http.response.status_code").unwrap(), "404");
    assert_eq!(attribute(&span, "runit.session.id").unwrap(), session.to_string());
    assert_eq!(span.status, Status::Unset, "a client's mistake is no error of the server's");
    let moments: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
    assert_eq!(moments, ["admitted", "provider answered"]);
}

#[test]
fn a_failure_of_ours_is_an_error_and_so_is_no_answer() {
    for (status, kind) in [(Some(502), "502"), (None, "unanswered")] {
        let (traces, exporter) = kept(1.0);
        traces.received(&Method::GET, &HeaderMap::new()).unwrap().answered(None, status);
        let span = only(&exporter);
        assert_eq!(span.status, Status::error(""));
        assert_eq!(attribute(&span, "error.type").unwrap(), kind);
    }
}

#[test]
fn a_method_of_somebodys_own_is_not_repeated() {
    let (traces, exporter) = kept(1.0);
    traces.received(&Method::from_bytes(b"SECRET").unwrap(), &HeaderMap::new()).unwrap().answered(None, Some(405));
    let span = only(&exporter);
    assert_eq!(span.name, "HTTP");
    assert_eq!(attribute(&span, "http.request.method").unwrap(), "_OTHER");
}

#[test]
fn without_a_collector_there_is_no_span() {
    let traces = Traces::start(&runit_config::Traces::default(), "runit").unwrap();
    assert!(traces.received(&Method::GET, &from_client("01")).is_none());
    traces.stop();
}
