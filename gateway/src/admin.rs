//! The operator's listener: `/metrics`, `/livez`, and `POST /sessions/{id}/cut`, which ends a lock.
//!
//! Loopback alone protects what only reads. What changes something takes the operator's key in any case, because a web page
//! in a browser on this machine could send a request to loopback too.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};
use runit_core::{SecretHash, SessionId};

/// Something that can be scraped.
pub type Source = Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// Ends a session's lock; answers whether there was one.
pub type Cutter = Arc<dyn Fn(SessionId) -> BoxFuture<'static, bool> + Send + Sync>;

/// Answers the operator.
pub struct Admin {
    /// Ends locks.
    pub cut: Cutter,
    /// What is scraped, one after the other.
    pub sources: Vec<Source>,
    /// What `Authorization: Bearer` must hold; none where loopback is protection enough.
    pub operator_key: Option<SecretHash>,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let authorization = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(id) = request.uri.path().strip_prefix("/sessions/").and_then(|rest| rest.strip_suffix("/cut")) {
            return self.cut(&request.method, id, authorization).await;
        }
        self.answer(&request.method, request.uri.path(), authorization)
    }
}

impl Admin {
    fn answer(&self, method: &Method, path: &str, authorization: Option<&str>) -> Response<Vec<u8>> {
        if !self.may_ask(authorization) {
            return plain(StatusCode::UNAUTHORIZED, b"operator key required\n".to_vec());
        }
        match (method, path) {
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::GET, "/livez") => plain(StatusCode::OK, b"ok\n".to_vec()),
            _ => plain(StatusCode::NOT_FOUND, b"not found\n".to_vec()),
        }
    }

    async fn cut(&self, method: &Method, id: &str, authorization: Option<&str>) -> Response<Vec<u8>> {
        if self.operator_key.is_none() || !self.may_ask(authorization) {
            return plain(StatusCode::UNAUTHORIZED, b"operator key required\n".to_vec());
        }
        if method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, b"POST only\n".to_vec());
        }
        match id.parse() {
            Ok(id) if (self.cut)(id).await => plain(StatusCode::OK, b"cut\n".to_vec()),
            _ => plain(StatusCode::NOT_FOUND, b"nobody holds such a session\n".to_vec()),
        }
    }

    fn may_ask(&self, authorization: Option<&str>) -> bool {
        let Some(key) = self.operator_key else { return true };
        authorization.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| SecretHash::of(given) == key)
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let families: Vec<MetricFamily> = self.sources.iter().flat_map(|source| source()).collect();
        let mut body = Vec::new();
        match TextEncoder::new().encode(&families, &mut body) {
            Ok(()) => plain(StatusCode::OK, body),
            Err(error) => {
                tracing::error!(%error, "metrics could not be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
            }
        }
    }
}

fn plain(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)
        .header(header::CONTENT_LENGTH, body.len())
        .body(body)
        .expect("constant names and values")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin(key: Option<&str>) -> Admin {
        let cut: Cutter = Arc::new(|_| Box::pin(async { true }));
        Admin { cut, sources: Vec::new(), operator_key: key.map(SecretHash::of) }
    }

    #[test]
    fn nothing_is_changed_without_an_operator_key_even_on_loopback() {
        let id = "00000000-0000-4000-8000-000000000001";
        let status = |key, method, authorization| {
            let admin = admin(key);
            futures::executor::block_on(admin.cut(&method, id, authorization)).status()
        };
        assert_eq!(status(None, Method::POST, None), StatusCode::UNAUTHORIZED);
        assert_eq!(status(Some("key"), Method::POST, None), StatusCode::UNAUTHORIZED);
        assert_eq!(status(Some("key"), Method::POST, Some("Bearer guess")), StatusCode::UNAUTHORIZED);
        assert_eq!(status(Some("key"), Method::GET, Some("Bearer key")), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Some("key"), Method::POST, Some("Bearer key")), StatusCode::OK);
    }

    #[test]
    fn an_operator_key_is_demanded_where_one_is_set() {
        let admin = admin(Some("key"));
        let status = |authorization| admin.answer(&Method::GET, "/metrics", authorization).status();
        assert_eq!(status(None), StatusCode::UNAUTHORIZED);
        assert_eq!(status(Some("Bearer guess")), StatusCode::UNAUTHORIZED);
        assert_eq!(status(Some("Bearer key")), StatusCode::OK);
    }
}
