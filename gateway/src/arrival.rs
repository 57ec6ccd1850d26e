//! Whether somebody who opens a hand-over link means to, as far as a browser tells.
//!
//! A link is a GET, so whatever follows links could take a lock: a page of another site that sends the browser into a
//! session of somebody else's choosing, a preview, a prefetch, a picture. Browsers say what a request is for (W3C Fetch
//! Metadata) and which page led to it (`Referer`, which no page can make another's); programs say nothing, and mean it.

use http::{HeaderMap, header};
use url::Url;

/// How browsers say that nobody has asked for this yet.
const PURPOSES: [&str; 4] = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
const NOT_YET: [&str; 3] = ["prefetch", "prerender", "preview"];

/// Which pages' links are meant as they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages<'a> {
    /// The control plane's, whatever its host name.
    pub(crate) control: &'a Url,
    /// Rentals have host names of their own, which browsers may take for the same site: a page there is a provider's.
    pub(crate) rentals_apart: bool,
}

/// Whether a request may take a lock without being asked back.
pub(crate) fn is_meant(headers: &HeaderMap, pages: Pages<'_>) -> bool {
    let values = |name: &str| headers.get_all(name).into_iter().map(|value| value.as_bytes().to_ascii_lowercase());
    let is_one_of = |name, known: &[&[u8]]| values(name).all(|value| known.contains(&&*value));
    let not_yet =
        |value: Vec<u8>| NOT_YET.iter().any(|word| value.windows(word.len()).any(|part| part == word.as_bytes()));
    let asked_for = !PURPOSES.iter().any(|name| values(name).any(not_yet));
    // Typed or bookmarked, or a link on a page of the operator's.
    let sites: &[&[u8]] =
        if pages.rentals_apart { &[b"none", b"same-origin"] } else { &[b"none", b"same-origin", b"same-site"] };
    asked_for
        && (is_one_of("sec-fetch-site", sites) || is_led_by(headers, pages.control))
        && is_one_of("sec-fetch-mode", &[b"navigate"])
        && is_one_of("sec-fetch-dest", &[b"document"])
}

/// Whether a page of this origin led here.
fn is_led_by(headers: &HeaderMap, origin: &Url) -> bool {
    let mut lines = headers.get_all(header::REFERER).iter();
    let led_by = lines.next().and_then(|line| line.to_str().ok()).and_then(|line| Url::parse(line).ok());
    led_by.is_some_and(|page| page.origin() == origin.origin()) && lines.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant_where(rentals_apart: bool, lines: &[(&'static str, &str)]) -> bool {
        let control = Url::parse("https://rent.example/").expect("valid");
        let lines = lines.iter().map(|(name, value)| (name.parse().expect("valid"), value.parse().expect("valid")));
        is_meant(&lines.collect(), Pages { control: &control, rentals_apart })
    }

    fn meant(lines: &[(&'static str, &str)]) -> bool {
        meant_where(false, lines)
    }

    #[test]
    fn where_rentals_have_names_of_their_own_a_page_of_the_same_site_may_be_a_providers() {
        let from = |site, page| meant_where(true, &[("sec-fetch-site", site), ("referer", page)]);
        assert!(meant_where(true, &[("sec-fetch-site", "none")]) && meant_where(true, &[]));
        assert!(!meant_where(true, &[("sec-fetch-site", "same-site")]));
        for page in [
            "https://abc.notebooks.example/",
            "https://rent.example.evil.test/",
            "http://rent.example/",
            "rent.example",
        ] {
            assert!(!from("same-site", page), "{page}");
        }
        assert!(from("same-site", "https://rent.example/renter/") && from("cross-site", "https://rent.example/"));
        let twice =
            [("sec-fetch-site", "cross-site"), ("referer", "https://rent.example/"), ("referer", "https://a.test/")];
        assert!(!meant_where(true, &twice));
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
