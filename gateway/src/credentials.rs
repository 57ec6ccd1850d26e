//! What a request presents: tokens and cookies, found and taken out again.
//!
//! A session URL behaves like a Jupyter server's URL with a token: `?token=`, `Authorization: token <t>` and
//! `Authorization: Bearer <t>` all count, and so does the cookie that the gateway set. What is ours never reaches the
//! provider, and what is not ours passes byte for byte.

use std::cell::OnceCell;

use http::{HeaderMap, header};
use percent_encoding::percent_decode;
use runit_core::{AccessToken, Presented, Secret, SessionId};

/// Cookies of this prefix, and of this prefix behind [`HOST_PREFIX`], are the gateway's own: they are never passed on, in
/// either direction.
pub(crate) const COOKIE_PREFIX: &str = "runit-";
/// Browsers let no other host and no page without TLS set a cookie of this prefix (RFC 6265bis, section 4.1.3.2).
const HOST_PREFIX: &str = "__Host-";
/// Cookies of one name that are looked at: one is ours, others come from pages of hosts beside it.
const MOST_COOKIES: usize = 8;

/// The name of a session's cookie; `secure` where renters come over TLS.
pub(crate) fn cookie_name(session: SessionId, secure: bool) -> String {
    let prefix = if secure { HOST_PREFIX } else { "" };
    format!("{prefix}{COOKIE_PREFIX}{session}")
}

/// Collects what a request presents for `session`.
pub(crate) fn presented(headers: &HeaderMap, query: Option<&[u8]>, session: SessionId, secure: bool) -> Presented {
    let cookies = cookie_values(headers, session, secure).map(|secret| secret.hash()).collect();
    let tokens = authorization_tokens(headers).chain(query_tokens(query)).map(|token| token.hash()).collect();
    Presented { cookies, tokens }
}

/// The values of the cookies of the session's name.
pub(crate) fn cookie_values(headers: &HeaderMap, session: SessionId, secure: bool) -> impl Iterator<Item = Secret> {
    let name = OnceCell::new();
    cookie_pairs(headers)
        .filter_map(move |pair| {
            let name = name.get_or_init(|| cookie_name(session, secure));
            std::str::from_utf8(pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?).ok()
        })
        .take(MOST_COOKIES)
        .map(Secret::new)
}

/// The tokens in `Authorization` lines; the scheme's case does not matter (RFC 9110, section 11.1).
fn authorization_tokens(headers: &HeaderMap) -> impl Iterator<Item = AccessToken> {
    headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let ours = scheme.eq_ignore_ascii_case("token") || scheme.eq_ignore_ascii_case("bearer");
        ours.then(|| AccessToken::parse(token.trim())).flatten()
    })
}

/// The tokens in the query, decoded as a server would.
pub(crate) fn query_tokens(query: Option<&[u8]>) -> impl Iterator<Item = AccessToken> {
    parameters(query.unwrap_or_default()).filter_map(|parameter| {
        let value = token_value(parameter)?;
        let decoded = percent_decode(value).decode_utf8().ok()?;
        AccessToken::parse(&decoded)
    })
}

/// The query without any `token` parameter; all other bytes as they were.
pub(crate) fn without_tokens(query: &[u8]) -> Vec<u8> {
    let kept: Vec<&[u8]> = parameters(query).filter(|parameter| token_value(parameter).is_none()).collect();
    kept.join(&b'&')
}

/// The value, if this query parameter is a `token`, however its name is spelled.
fn token_value(parameter: &[u8]) -> Option<&[u8]> {
    let at = parameter.iter().position(|&c| c == b'=');
    let (name, value) = at.map_or((parameter, &b""[..]), |at| (&parameter[..at], &parameter[at + 1..]));
    percent_decode(name).eq(b"token".iter().copied()).then_some(value)
}

/// Tornado splits at `&` only, as does the URL standard; `;` is a plain character.
fn parameters(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|&c| c == b'&')
}

/// The `name=value` pairs of all `Cookie` lines (RFC 6265, section 5.4).
fn cookie_pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&c| c == b';'))
        .map(<[u8]>::trim_ascii)
}

/// The cookies that the provider may see, as one line; none if there are none.
pub(crate) fn foreign_cookies(headers: &HeaderMap) -> Option<Vec<u8>> {
    let kept: Vec<&[u8]> = cookie_pairs(headers).filter(|pair| !pair.is_empty() && !is_ours(pair)).collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}

fn is_ours(pair: &[u8]) -> bool {
    // Some browsers take the prefix in any case, and some servers fold names.
    let starts_with = |text: &[u8], prefix: &str| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let name = if starts_with(pair, HOST_PREFIX) { &pair[HOST_PREFIX.len()..] } else { pair };
    starts_with(name, COOKIE_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use runit_core::SecretHash;

    const TOKEN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    const OTHER: &str = "11111111-10b1-426f-9247-bb680e5fe0c8";

    fn session() -> SessionId {
        "00000000-0000-4000-8000-000000000001".parse().expect("canonical")
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().expect("valid"), value.parse().expect("valid"))).collect()
    }

    fn hash(token: &str) -> SecretHash {
        SecretHash::of(token)
    }

    #[test]
    fn tokens_are_found_wherever_jupyter_clients_put_them() {
        for scheme in ["token", "Token", "Bearer", "bearer"] {
            let headers = headers(&[("authorization", &format!("{scheme} {TOKEN}"))]);
            assert_eq!(presented(&headers, None, session(), false).tokens, [hash(TOKEN)], "{scheme}");
        }
        let query = format!("a=1&token={TOKEN}");
        assert_eq!(presented(&HeaderMap::new(), Some(query.as_bytes()), session(), false).tokens, [hash(TOKEN)]);
        let headers = headers(&[("authorization", &format!("token {OTHER}"))]);
        let both = presented(&headers, Some(query.as_bytes()), session(), false);
        assert_eq!(both.tokens, [hash(OTHER), hash(TOKEN)]);
    }

    #[test]
    fn what_cannot_be_a_token_of_ours_is_not_taken_for_one() {
        let headers = headers(&[("authorization", "Basic dXNlcjpwYXNz"), ("authorization", "token 0123456789abcdef")]);
        assert!(presented(&headers, Some(b"token=&token=abc&xtoken=1"), session(), false).tokens.is_empty());
    }

    #[test]
    fn only_the_sessions_own_cookies_count() {
        let name = cookie_name(session(), false);
        let line =
            format!("a=b; runit-00000000-0000-4000-8000-000000000002=other; {name}=mine;{name}=tossed; x{name}=no");
        let cookies = headers(&[("cookie", &line), ("cookie", &format!("{name}=\"quoted\""))]);
        assert_eq!(presented(&cookies, None, session(), false).cookies, ["mine", "tossed", "\"quoted\""].map(hash));
        assert!(presented(&cookies, None, session(), true).cookies.is_empty(), "not set over TLS");
        let secure = headers(&[("cookie", &format!("__Host-{name}=mine"))]);
        assert_eq!(presented(&secure, None, session(), true).cookies, [hash("mine")]);
        assert!(presented(&secure, None, session(), false).cookies.is_empty());
    }

    #[test]
    fn token_parameters_go_and_the_rest_of_the_query_stays_byte_for_byte() {
        let table = [
            ("token=a", ""),
            ("1795316893", "1795316893"),
            ("a=%2F&token=x&b=//:", "a=%2F&b=//:"),
            ("t%6Fken=x&a", "a"),
            ("token&token=&Token=x", "Token=x"),
            ("a=token=b&xtoken=c", "a=token=b&xtoken=c"),
            ("a&&b", "a&&b"),
        ];
        for (query, expected) in table {
            assert_eq!(without_tokens(query.as_bytes()), expected.as_bytes(), "{query}");
        }
    }

    #[test]
    fn foreign_cookies_pass_and_ours_stay_here() {
        let headers = headers(&[("cookie", "_xsrf=2|a|b; runit-x=1"), ("cookie", "runit-y=2;  lab=3;")]);
        assert_eq!(foreign_cookies(&headers), Some(b"_xsrf=2|a|b; lab=3".to_vec()));
        let imitated =
            [("cookie", "__Host-runit-x=1; __host-RUNIT-x=1; RUNIT-x=1; __Host-lab=1; runit=1; x=\"a b,c\"")];
        let foreign = foreign_cookies(&self::headers(&imitated));
        assert_eq!(foreign, Some(b"__Host-lab=1; runit=1; x=\"a b,c\"".to_vec()));
        let mut only_ours = HeaderMap::new();
        only_ours.insert("cookie", HeaderValue::from_static("runit-x=1"));
        assert_eq!(foreign_cookies(&only_ours), None);
    }
}
