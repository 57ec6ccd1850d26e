//! Header fields by their names: what both policies say their rows with.

use http::{HeaderMap, HeaderName, header};

/// Whether a table of patterns has `name`, which is in lower case: a pattern is a name, the beginning of names
/// (`cf-*`), or what names contain (`*_*`).
pub(crate) fn lists(patterns: &[&str], name: &str) -> bool {
    // On bytes, since every field of every message is looked for in every table.
    let name = name.as_bytes();
    patterns.iter().any(|pattern| match pattern.as_bytes() {
        [b'*'] => true,
        [b'*', part @ .., b'*'] => name.windows(part.len()).any(|window| window == part),
        [beginning @ .., b'*'] => name.starts_with(beginning),
        whole => whole == name,
    })
}

/// The options of all lines of a field that is a list (RFC 9110, section 5.6.1); empty ones do not count.
pub(crate) fn options<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&c| c == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// Names that a `Connection` calls hop-by-hop (RFC 9110, section 7.6.1), less those that frame or address the message.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    const PROTECTED: [HeaderName; 4] =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONTENT_TYPE, header::HOST];
    options(headers, &header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !PROTECTED.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_beginnings_and_parts() {
        let table = ["via", "cf-*", "*_*"];
        for name in ["via", "cf-ray", "cf-", "x_forwarded_for", "_"] {
            assert!(lists(&table, name), "{name}");
        }
        for name in ["vi", "via2", "cf", "x-cf-ray", ""] {
            assert!(!lists(&table, name), "{name}");
        }
    }

    #[test]
    fn options_come_from_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append("connection", " close ,, X-A".parse().expect("valid"));
        headers.append("connection", "x-b".parse().expect("valid"));
        assert!(options(&headers, &http::header::CONNECTION).eq([&b"close"[..], b"X-A", b"x-b"]));
    }
}
