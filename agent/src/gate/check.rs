//! Who gets through the gate. Pure.

use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, StatusCode, header};
use runit_core::Secret;
use subtle::ConstantTimeEq;

/// Proof that a request may go to Jupyter; only [`admit`] makes one.
#[derive(Debug)]
pub(super) struct Admitted {
    target: PathAndQuery,
}

impl Admitted {
    /// Path and query, byte for byte as they came.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }
}

/// Why a request is answered by the gate itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not a path: `*`, an absolute URL, CONNECT.
    Target,
    /// No secret, a wrong one, or more than one `Authorization` line.
    Forbidden,
    /// No workspace stands behind the gate at the moment.
    Shut,
    /// Jupyter could not be reached, or broke off before its answer's head, or switched protocols unasked.
    Upstream,
}

impl Refusal {
    /// Status, stable code and message of the answer.
    pub(super) fn answer(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Target => (StatusCode::BAD_REQUEST, "bad_target", "bad request target"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "forbidden"),
            Self::Shut => (StatusCode::SERVICE_UNAVAILABLE, "starting", "the session is being prepared"),
            Self::Upstream => (StatusCode::BAD_GATEWAY, "unreachable", "the session does not answer"),
        }
    }
}

/// Admits a request that brings exactly one `Authorization: token <secret>` and asks for a path.
pub(super) fn admit(request: &Parts, secret: &Secret) -> Result<Admitted, Refusal> {
    let mut credentials = request.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (credentials.next(), credentials.next()) else {
        return Err(Refusal::Forbidden);
    };
    if !is_token(only.as_bytes(), secret) {
        return Err(Refusal::Forbidden);
    }
    let uri = &request.uri;
    if request.method == Method::CONNECT || uri.scheme().is_some() || uri.authority().is_some() {
        return Err(Refusal::Target);
    }
    match uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => Ok(Admitted { target: target.clone() }),
        _ => Err(Refusal::Target),
    }
}

/// The scheme's case does not matter (RFC 9110, 11.1). The secret is compared in constant time; its length is no secret.
fn is_token(credential: &[u8], secret: &Secret) -> bool {
    const SCHEME: &[u8] = b"token ";
    credential.split_at_checked(SCHEME.len()).is_some_and(|(scheme, presented)| {
        scheme.eq_ignore_ascii_case(SCHEME) && presented.ct_eq(secret.expose().as_bytes()).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn admitted(method: &str, target: &str, credentials: &[&str]) -> Result<String, Refusal> {
        let mut request = Request::builder().method(method).uri(target);
        for credential in credentials {
            request = request.header("authorization", *credential);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        admit(&parts, &Secret::new("s3cret")).map(|admitted| admitted.target().as_str().to_owned())
    }

    #[test]
    fn the_secret_admits_and_nothing_else_does() {
        assert!(admitted("GET", "/", &["token s3cret"]).is_ok());
        assert!(admitted("GET", "/", &["Token s3cret"]).is_ok());
        for wrong in [
            &[][..],
            &[""],
            &["token"],
            &["token "],
            &["token s3cre"],
            &["token s3cret "],
            &["token s3crets"],
            &["tokens3cret"],
            &["Bearer s3cret"],
            &["s3cret"],
            &["token s3cret", "token s3cret"],
            &["token s3cret", "Bearer x"],
            &["token s3cret, token s3cret"],
        ] {
            assert_eq!(admitted("GET", "/", wrong), Err(Refusal::Forbidden), "{wrong:?}");
        }
    }

    #[test]
    fn the_secret_in_the_query_does_not_admit() {
        assert_eq!(admitted("GET", "/lab?token=s3cret", &[]), Err(Refusal::Forbidden));
    }

    #[test]
    fn path_and_query_stay_byte_for_byte() {
        for target in
            ["/", "//a//b", "/s/x/files/a%2Fb%2f%25", "/a:b;c=d,e", "/static/x.js?1795316893", "/a?", "/a?b=%20+c&&"]
        {
            assert_eq!(admitted("GET", target, &["token s3cret"]).as_deref(), Ok(target));
        }
    }

    #[test]
    fn targets_that_are_no_path_are_refused() {
        for (method, target) in [("OPTIONS", "*"), ("GET", "http://127.0.0.1/x"), ("CONNECT", "127.0.0.1:22")] {
            assert_eq!(admitted(method, target, &["token s3cret"]), Err(Refusal::Target), "{method} {target}");
        }
    }
}
