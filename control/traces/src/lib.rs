//! Spans of requests for a collector of OpenTelemetry, where the operator names one (`traces.otlp_url`).
//!
//! Answers for: which requests get a span, what is in it, and that it is in its client's trace (W3C Trace Context). Names are
//! those of OpenTelemetry's semantic conventions for HTTP.
//!
//! Invariants: no path, query, header field or address is ever in a span, since those hold tokens, and what people work on; what
//! a client says of its trace can have fewer spans made than [`Traces::ratio`](runit_config::Traces), never more; spans wait in
//! bounded memory and are lost where the collector does not keep up, which the log tells, and no request waits for it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, TracerProviderBuilder};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE,
};
use opentelemetry_semantic_conventions::resource::SERVICE_VERSION;
use uuid::Uuid;

/// The session that a request was let into, by its id.
pub const SESSION_ID: &str = "runit.session.id";

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
    /// The SDK's own variables hold too, such as `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES`.
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
        let by_ratio = Sampler::TraceIdRatioBased(ratio);
        // A trace that its client does not record is not recorded here either.
        let sampler = Sampler::parent_based(by_ratio.clone()).with_remote_parent_sampled(by_ratio);
        let provider = provider.with_sampler(sampler).build();
        let tracer = provider.tracer("runit");
        Self(Some(Source { provider, tracer }))
    }

    /// Begins the span of a request that has come, if it gets one.
    pub fn received(&self, method: &Method, headers: &HeaderMap) -> Option<RequestSpan> {
        let Source { tracer, .. } = self.0.as_ref()?;
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        let method = method_name(method);
        let name = if method == OTHER { "HTTP" } else { method };
        let span = tracer.span_builder(name).with_kind(SpanKind::Server);
        let span = span.with_attributes([KeyValue::new(HTTP_REQUEST_METHOD, method)]);
        let span = tracer.build_with_context(span, &parent);
        span.is_recording().then_some(RequestSpan { span, name })
    }

    /// Sends the spans that are left, for some seconds at most; there will be no others. Blocks.
    pub fn stop(&self) {
        if let Some(Source { provider, .. }) = &self.0 {
            // What cannot be sent now is lost, and told by the SDK.
            let _ = provider.shutdown_with_timeout(LAST_SPANS);
        }
    }
}

/// A request's span, until it is answered. It ends when it is dropped.
#[derive(Debug)]
pub struct RequestSpan {
    span: opentelemetry_sdk::trace::Span,
    /// As long as there is no route in it.
    name: &'static str,
}

impl RequestSpan {
    /// What whoever gets the request next is told of its trace.
    pub fn traceparent(&self) -> HeaderValue {
        let context: &SpanContext = self.span.span_context();
        let flags = context.trace_flags().to_u8();
        let text = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        HeaderValue::from_str(&text).expect("digits")
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

    /// Ends it with the status that it was answered with, if it was, and the template of its route, where there is one.
    pub fn answered(mut self, route: Option<&str>, status: Option<u16>) {
        if let Some(route) = route {
            self.span.update_name(format!("{} {route}", self.name));
            self.span.set_attribute(KeyValue::new(HTTP_ROUTE, route.to_owned()));
        }
        if let Some(status) = status {
            self.span.set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        }
        let failure = match status {
            None => "unanswered".to_owned(),
            Some(status @ 500..) => status.to_string(),
            Some(_) => return,
        };
        self.span.set_attribute(KeyValue::new(ERROR_TYPE, failure));
        self.span.set_status(Status::error(""));
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
