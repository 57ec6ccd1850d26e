//! The listener for plain HTTP beside one with TLS: it answers each request with a redirect, and nothing else.
//!
//! Where to is decided by `gateway.public_url`, never by what the request says of its host. A `token` parameter came over
//! the wire in the clear, and is not sent along a second time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use url::Url;

use crate::entrance::with_query;
use crate::files;
use crate::gateway::split_target;
use crate::head::HeadScanner;

/// Connections at one moment, at the most; more are closed at once.
pub(crate) const CONNECTIONS: u64 = 1_024;
/// Of the files that the process may open, they take no more than this part.
const PART_OF_FILES: u64 = 16;
/// For one connection, from its first to its last byte.
const WITHIN: Duration = Duration::from_secs(5);
const HEAD_BYTES: usize = 16 * 1024;

/// Redirects to the gateway's public name.
pub struct RedirectApp {
    public_url: String,
    places: Semaphore,
}

impl RedirectApp {
    /// Redirects to `public_url`, an origin.
    pub fn new(public_url: &Url) -> Self {
        let public_url = public_url.as_str().trim_end_matches('/').to_owned();
        let places = CONNECTIONS.min(files::most() / PART_OF_FILES) as usize;
        Self { public_url, places: Semaphore::new(places) }
    }

    async fn converse(&self, mut stream: Stream) -> std::io::Result<()> {
        let mut scanner = HeadScanner::default();
        let mut head = Vec::new();
        let mut chunk = [0; 1_024];
        while !scanner.is_done() && head.len() < HEAD_BYTES {
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            scanner.advance(&chunk[..read]);
            head.extend_from_slice(&chunk[..read]);
        }
        let answer = if scanner.is_done() { self.answer(&head) } else { bad_request() };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        AsyncWriteExt::shutdown(&mut stream).await
    }

    fn answer(&self, head: &[u8]) -> String {
        let Some(target) = target(head) else { return bad_request() };
        format!(
            "HTTP/1.1 308 Permanent Redirect\r\nLocation: {}{target}\r\nCache-Control: no-store\r\n\
             Referrer-Policy: no-referrer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.public_url
        )
    }
}

fn bad_request() -> String {
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
}

/// Path and query of a request in origin form, without tokens; nothing in it can end a header line.
fn target(head: &[u8]) -> Option<String> {
    let line = head.trim_ascii_start().split(|&c| c == b'\r' || c == b'\n').next()?;
    let mut parts = line.split(|&c| c == b' ');
    let (_method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_http = version.starts_with(b"HTTP/1.") && parts.next().is_none();
    let is_origin_form = target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic);
    let (path, query) = split_target(target);
    if is_http && is_origin_form { with_query(path, query) } else { None }
}

#[async_trait]
impl ServerApp for RedirectApp {
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let _place = self.places.try_acquire().ok()?;
        // How it ends is the client's affair.
        let _ = tokio::time::timeout(WITHIN, self.converse(stream)).await;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(request: &str) -> Option<String> {
        let app = RedirectApp::new(&Url::parse("https://gateway.example:8443").expect("a URL"));
        let answer = app.answer(format!("{request}\r\nHost: evil.example\r\n\r\n").as_bytes());
        assert_eq!(answer.matches("\r\n\r\n").count(), 1);
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        assert_eq!(answer.starts_with("HTTP/1.1 308 "), location.is_some(), "{answer}");
        location.map(str::to_owned)
    }

    #[test]
    fn path_and_query_are_kept_and_the_host_is_ours() {
        for (target, kept) in [
            ("/", "/"),
            ("/s/x/lab?reset&a=%2F//", "/s/x/lab?reset&a=%2F//"),
            ("/s/x/lab?token=secret", "/s/x/lab"),
            ("/s/x/lab?a=1&token=secret&b=2", "/s/x/lab?a=1&b=2"),
            ("//evil.example/x", "//evil.example/x"),
            ("/\\evil.example", "/\\evil.example"),
        ] {
            let expected = format!("https://gateway.example:8443{kept}");
            assert_eq!(location(&format!("GET {target} HTTP/1.1")).as_deref(), Some(&*expected));
        }
        assert!(location("POST /x HTTP/1.0").is_some(), "308 keeps the method");
    }

    #[test]
    fn what_is_no_plain_request_is_not_reflected() {
        for line in [
            "GET http://evil.example/ HTTP/1.1",
            "GET @evil.example HTTP/1.1",
            ".evil.example / HTTP/1.1 x",
            "GET /\u{e9} HTTP/1.1",
            "GET /a\tb HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /",
            "CONNECT evil.example:443 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "",
        ] {
            assert_eq!(location(line), None, "{line:?}");
        }
    }
}
