//! The cookie of an operator's browser, and which requests it may speak for.
//!
//! Browsers send a cookie with whatever a page makes them send. So it counts only where the browser says that the request
//! comes from our own page; where something would change, only with [`PAGE`] as well, which a foreign page cannot send
//! without asking first (CORS, which is off).
//!
//! Its name begins as those of the gateway's cookies: browsers share cookies between ports of a host, and the gateway
//! passes none of these on.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use runit_core::{Secret, SecretHash};
use url::Url;

use super::sign_ins::LASTS;

/// What our page sends with each call that changes something.
pub(super) const PAGE: HeaderName = HeaderName::from_static("runit-operator-page");

const NAME: &str = "runit-operator";
/// Browsers let no other host and no page without TLS set a cookie of this name (RFC 6265bis, section 4.1.3.2).
const SECURE_NAME: &str = "__Host-runit-operator";
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The hash of the cookie that a request presents.
pub(super) fn presented(headers: &HeaderMap) -> Option<SecretHash> {
    let pairs = || {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
    };
    let value = |wanted| pairs().find(|(name, _)| *name == wanted).map(|(_, value)| SecretHash::of(value));
    value(SECURE_NAME).or_else(|| value(NAME))
}

/// `Set-Cookie` for a new sign-in. The browser's own `Origin` tells whether it came over TLS: the listener itself has none.
pub(super) fn set(headers: &HeaderMap, cookie: &Secret) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{}; Max-Age={}", line(headers, cookie.expose()), LASTS.as_secs())).ok()
}

/// `Set-Cookie` that takes it back.
pub(super) fn cleared(headers: &HeaderMap) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{}; Max-Age=0", line(headers, ""))).ok()
}

/// Whether our own page sent this.
pub(super) fn is_from_our_page(parts: &Parts) -> bool {
    let text = |name: &HeaderName| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_safe = parts.method.is_safe();
    let is_same_origin = match (text(&SITE), origin(&parts.headers)) {
        (Some(site), _) => site == "same-origin",
        // Without TLS, and not on this machine, browsers tell the origin only, and that only where something may change.
        (None, Some(origin)) => text(&header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(origin.authority())),
        (None, None) => is_safe,
    };
    is_same_origin && (is_safe || parts.headers.contains_key(PAGE))
}

fn line(headers: &HeaderMap, value: &str) -> String {
    let is_secure = origin(headers).is_some_and(|origin| origin.scheme() == "https");
    let (name, scope) = if is_secure { (SECURE_NAME, "/; Secure") } else { (NAME, "/admin/v1") };
    format!("{name}={value}; Path={scope}; HttpOnly; SameSite=Strict")
}

fn origin(headers: &HeaderMap) -> Option<Url> {
    Url::parse(headers.get(header::ORIGIN)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn is_ours(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).header("host", "localhost:9180");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_from_our_page(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn only_our_own_page_speaks_with_the_cookie() {
        let page = ("runit-operator-page", "1");
        let (same, ours) = (("sec-fetch-site", "same-origin"), ("origin", "http://localhost:9180"));
        assert!(is_ours("POST", &[same, ours, page]));
        assert!(is_ours("DELETE", &[ours, page]), "a browser that sends no Sec-Fetch-Site");
        assert!(is_ours("GET", &[same]));
        assert!(is_ours("GET", &[]));

        assert!(!is_ours("POST", &[same, ours]), "a form of our origin sends no such header");
        assert!(!is_ours("POST", &[page]), "no browser leaves out both");
        for site in ["cross-site", "same-site", "none"] {
            assert!(!is_ours("POST", &[("sec-fetch-site", site), ours, page]), "{site}");
            assert!(!is_ours("GET", &[("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["http://localhost:9000", "https://evil.example", "null", ""] {
            assert!(!is_ours("POST", &[("origin", origin), page]), "{origin}");
        }
    }

    #[test]
    fn over_tls_the_cookie_is_bound_to_the_host() {
        let mut headers = HeaderMap::new();
        let cookie = Secret::new("value");
        let set_cookie = |headers: &HeaderMap| set(headers, &cookie).unwrap().to_str().unwrap().to_owned();
        headers.insert("origin", HeaderValue::from_static("http://localhost:9180"));
        let line = "runit-operator=value; Path=/admin/v1; HttpOnly; SameSite=Strict; Max-Age=43200";
        assert_eq!(set_cookie(&headers), line);
        headers.insert("origin", HeaderValue::from_static("https://ops.example"));
        let line = "__Host-runit-operator=value; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200";
        assert_eq!(set_cookie(&headers), line);
    }

    #[test]
    fn the_bound_cookie_goes_before_one_that_may_be_planted() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from_static("a=b; runit-operator=planted; __Host-runit-operator=ours"));
        assert_eq!(presented(&headers), Some(SecretHash::of("ours")));
        headers.insert("cookie", HeaderValue::from_static("runit-operator=plain"));
        assert_eq!(presented(&headers), Some(SecretHash::of("plain")));
        headers.insert("cookie", HeaderValue::from_static("xrunit-operator=plain"));
        assert_eq!(presented(&headers), None);
    }
}
