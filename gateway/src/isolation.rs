//! What is said with every answer so that browsers keep the pages of a session to themselves.
//!
//! Pages of other origins can neither embed nor open-and-watch them, and nothing of theirs is run as what it is not. What a
//! provider says to the same end stays where it is stricter: policies add up, and of the other fields ours is the strictest.

use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::ResponseHeader;

/// One value each; a provider's own is replaced.
const FIELDS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // No window of another origin keeps a handle on this one (HTML, section 7.1.3).
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    // No other origin loads this as a script, a picture or the like (Fetch, section 3.7).
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    // No process in common with rentals under the same name (HTML, section 7.1.2).
    (HeaderName::from_static("origin-agent-cluster"), HeaderValue::from_static("?1")),
];

/// Framed by pages of its own origin only. A second policy beside the provider's: both hold (CSP level 3, section 8.1).
const FRAMES: HeaderValue = HeaderValue::from_static("frame-ancestors 'self'");

/// Adds the fields to an answer of the gateway's own.
pub(crate) fn isolate(head: &mut ResponseHeader) -> Result<()> {
    FIELDS.into_iter().try_for_each(|(name, value)| head.insert_header(name, value))
}

/// Adds the fields to a provider's final answer.
pub(crate) fn isolate_providers(head: &mut ResponseHeader) -> Result<()> {
    isolate(head)?;
    head.append_header(header::CONTENT_SECURITY_POLICY, FRAMES).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_policy_is_added_to_and_weaker_words_are_replaced() {
        let mut head = ResponseHeader::build(200, None).expect("valid");
        let jupyters = "frame-ancestors *; report-uri /s/x/api/security/csp-report";
        for (name, value) in [
            ("content-security-policy", jupyters),
            ("content-security-policy", "sandbox allow-scripts"),
            ("cross-origin-opener-policy", "unsafe-none"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("cross-origin-resource-policy", "same-site"),
            ("origin-agent-cluster", "?0"),
        ] {
            head.append_header(name, value).expect("valid");
        }
        isolate_providers(&mut head).expect("valid");
        let all =
            |name: &str| head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
        assert_eq!(all("content-security-policy"), [jupyters, "sandbox allow-scripts", "frame-ancestors 'self'"]);
        assert_eq!(all("cross-origin-opener-policy"), ["same-origin"]);
        assert_eq!(all("cross-origin-resource-policy"), ["same-origin"]);
        assert_eq!(all("origin-agent-cluster"), ["?1"]);
        assert_eq!(all("x-content-type-options"), ["nosniff"]);
    }
}
