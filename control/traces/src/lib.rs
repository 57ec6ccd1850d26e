//! Spans of requests for a collector of OpenTelemetry, where the operator names one (`traces.otlp_url`).
//!
//! Answers for: which requests get a span, what is in it, and that it is in its client's trace (W3C Trace Context). Names are
//! those of OpenTelemetry's semantic conventions for HTTP.
//!
//! Invariants: no path, query, header field or address is ever in a span, since those hold tokens, and what people work on; what
//! a client says of its trace can have fewer spans made than [`Traces::ratio`](runit_config::Traces), never more; spans wait in
//! bounded memory and are lost where the collector does not keep up, and no request waits for it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Link, Span, SpanKind, Status, TraceContextExt, TraceState, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, TracerProviderBuilder,
};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE,
};
use opentelemetry_semantic_conventions::resource::SERVICE_VERSION;
use runit_core::trace::{TRACEPARENT, TraceId};
use uuid::Uuid;

/// The session that a request was let into, by its id.
const SESSION_ID: &str = "runit.session.id";

/// Every method that has no name in [`method_name`].
const OTHER: &str = "_OTHER";
/// How long the last spans may take to their collector.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Where spans go. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Source>);

#[derive(Debug, Clone)]
struct Source {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Exports by OTLP over HTTP (protobuf), in batches, on a thread of its own. Without `traces.otlp_url` there is nothing to
    /// do, and nothing is done.
    ///
    /// # Errors
    /// When no exporter can be made of these settings.
    pub fn start(settings: &runit_config::Traces, service: &'static str) -> Result<Self, ExporterBuildError> {
        let Some(url) = &settings.otlp_url else { return Ok(Self::default()) };
        let endpoint = format!("{}/v1/traces", url.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Self::of(provider, settings.ratio))
    }

    fn of(provider: TracerProviderBuilder, ratio: f64) -> Self {
        // A trace that its client does not record is not recorded here either.
        let sampler =
            Sampler::parent_based(Sampler::TraceIdRatioBased(ratio)).with_remote_parent_sampled(Chance(ratio));
        let provider = provider.with_sampler(sampler).build();
        let tracer = provider.tracer("runit");
        Self(Some(Source { provider, tracer }))
    }

    /// Begins the span of a request that has come, if it gets one, with the template of its route where there is one.
    pub fn received(&self, method: &Method, headers: &HeaderMap, route: Option<&str>) -> Option<RequestSpan> {
        let Source { tracer, .. } = self.0.as_ref()?;
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Told::by(headers));
        let begins_trace = !parent.span().span_context().is_valid();
        let method = method_name(method);
        let name = if method == OTHER { "HTTP" } else { method };
        let mut attributes = vec![KeyValue::new(HTTP_REQUEST_METHOD, method)];
        let span = match route {
            None => tracer.span_builder(name),
            Some(route) => {
                attributes.push(KeyValue::new(HTTP_ROUTE, route.to_owned()));
                tracer.span_builder(format!("{name} {route}"))
            }
        };
        let span = span.with_kind(SpanKind::Server).with_attributes(attributes);
        let span = tracer.build_with_context(span, &parent);
        span.is_recording().then_some(RequestSpan { span, begins_trace, status: None, failure: None })
    }

    /// Sends the spans that are left, for some seconds at most; there will be no others. Blocks.
    pub fn stop(&self) {
        if let Some(Source { provider, .. }) = &self.0 {
            // What cannot be sent now is lost, and told by the SDK.
            let _ = provider.shutdown_with_timeout(LAST_SPANS);
        }
    }
}

/// A request's span. It ends when it is dropped, and says then how the request went.
#[derive(Debug)]
pub struct RequestSpan {
    span: opentelemetry_sdk::trace::Span,
    begins_trace: bool,
    status: Option<u16>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    kind: String,
    /// Of the server or of whom it asked, not of its client.
    ours: bool,
}

impl RequestSpan {
    /// What whoever gets the request next is told of its trace.
    pub fn traceparent(&self) -> HeaderValue {
        let context = self.span.span_context();
        let flags = context.trace_flags().to_u8();
        let text = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        HeaderValue::from_str(&text).expect("digits")
    }

    /// Whether its client told of no trace.
    pub const fn begins_trace(&self) -> bool {
        self.begins_trace
    }

    /// Notes which session it was let into.
    pub fn admitted(&mut self, session: Uuid) {
        self.span.set_attribute(KeyValue::new(SESSION_ID, session.to_string()));
        self.span.add_event("admitted", Vec::new());
    }

    /// Notes that the provider has begun to answer.
    pub fn provider_answered(&mut self) {
        self.span.add_event("provider answered", Vec::new());
    }

    /// Notes what it was answered with.
    pub const fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Notes that it failed, perhaps after the head of the answer, by a word of a small set.
    pub fn failed(&mut self, kind: &str) {
        self.failure = Some(Failure { kind: kind.to_owned(), ours: true });
    }

    /// Notes that its client ended it, or was cut, by a word of a small set.
    pub fn cut_short(&mut self, kind: &str) {
        self.failure = Some(Failure { kind: kind.to_owned(), ours: false });
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if let Some(status) = self.status {
            self.span.set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        }
        let by_status = || match self.status {
            // Dropped under way: its client has gone, or was cut.
            None => Some(Failure { kind: "unanswered".to_owned(), ours: false }),
            Some(status @ 500..) => Some(Failure { kind: status.to_string(), ours: true }),
            Some(_) => None,
        };
        if let Some(Failure { kind, ours }) = self.failure.take().or_else(by_status) {
            self.span.set_attribute(KeyValue::new(ERROR_TYPE, kind));
            if ours {
                self.span.set_status(Status::error(""));
            }
        }
    }
}

/// Which trace a client says its request is in. Its `tracestate` is the next one's to read, and nobody else's.
struct Told<'a>(Option<&'a str>);

impl<'a> Told<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let only = fields.next().filter(|field| fields.next().is_none() && TraceId::of(field.as_bytes()).is_some());
        Self(only.and_then(|field| field.to_str().ok()))
    }
}

impl Extractor for Told<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.filter(|_| key == TRACEPARENT)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.map(|_| TRACEPARENT).into_iter().collect()
    }
}

/// Decides on each request anew, since clients choose the ids of their traces.
#[derive(Debug, Clone)]
struct Chance(f64);

impl ShouldSample for Chance {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: opentelemetry::TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let decision =
            if fastrand::f64() < self.0 { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

/// A method by its name, if it is one of those that have one (RFC 9110, RFC 5789): a name of somebody's own may be as long as a
/// head.
pub fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests;
