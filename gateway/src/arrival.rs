//! Whether somebody who opens a hand-over link means to, as far as a browser tells.
//!
//! A link is a GET, so whatever follows links could take a lock: a page of another site that sends the browser into a
//! session of somebody else's choosing, a preview, a prefetch, a picture. Browsers say what a request is for (W3C Fetch
//! Metadata); programs say nothing, and mean it.

use http::HeaderMap;

/// How browsers say that nobody has asked for this yet.
const PURPOSES: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
const NOT_YET: [&str; 3] = ["prefetch", "prerender", "preview"];

/// Whether a request may take a lock without being asked back.
pub(crate) fn is_meant(headers: &HeaderMap) -> bool {
    let values = |name: &str| headers.get_all(name).into_iter().map(|value| value.as_bytes().to_ascii_lowercase());
    let is_one_of = |name, known: &[&[u8]]| values(name).all(|value| known.contains(&&*value));
    let not_yet =
        |value: Vec<u8>| NOT_YET.iter().any(|word| value.windows(word.len()).any(|part| part == word.as_bytes()));
    let asked_for = !PURPOSES.iter().any(|name| values(name).any(not_yet));
    // Typed or bookmarked, or a link on a page of the operator's.
    asked_for
        && is_one_of("sec-fetch-site", &[b"none", b"same-origin", b"same-site"])
        && is_one_of("sec-fetch-mode", &[b"navigate"])
        && is_one_of("sec-fetch-dest", &[b"document"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(lines: &[(&'static str, &str)]) -> bool {
        is_meant(
            &lines.iter().map(|(name, value)| (name.parse().expect("valid"), value.parse().expect("valid"))).collect(),
        )
    }

    #[test]
    fn programs_and_people_who_open_a_link_mean_it() {
        assert!(meant(&[]));
        for site in ["none", "same-origin", "same-site"] {
            assert!(meant(&[("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]));
        }
    }

    #[test]
    fn other_sites_previews_and_parts_of_pages_do_not() {
        for line in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "something-new"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-dest", "image"),
            ("sec-fetch-dest", "iframe"),
            ("purpose", "prefetch"),
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "Prefetch"),
            ("x-moz", "prefetch"),
            ("x-purpose", "preview"),
        ] {
            assert!(!meant(&[line]), "{line:?}");
            assert!(!meant(&[("sec-fetch-dest", "document"), line]), "{line:?}");
        }
    }
}
