//! Header fields by their names: what both policies say their rows with.

use http::{HeaderMap, HeaderName, header};

/// A row's patterns: see [`lists`].
pub(crate) struct Fields {
    pub(crate) patterns: &'static [&'static str],
    /// One bit for each first character that a name of theirs can have, so that most names are looked for in no list.
    beginnings: u128,
    /// One of them may be anywhere in a name.
    anywhere: bool,
}

impl Fields {
    /// Patterns in ASCII, none of them empty.
    pub(crate) const fn of(patterns: &'static [&'static str]) -> Self {
        let (mut beginnings, mut anywhere) = (0, false);
        let mut at = 0;
        while at < patterns.len() {
            match patterns[at].as_bytes()[0] {
                b'*' => anywhere = true,
                first => beginnings |= 1 << first,
            }
            at += 1;
        }
        Self { patterns, beginnings, anywhere }
    }

    /// Whether `name` is one of them.
    pub(crate) fn list(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        let first = name.bytes().next().unwrap_or_default();
        (self.anywhere || self.beginnings >> (first & 0x7f) & 1 == 1) && lists(self.patterns, name)
    }
}

/// Whether a table of patterns has `name`, which is in lower case: a pattern is a name, the beginning of names
/// (`cf-*`), or what names contain (`*_*`).
fn lists(patterns: &[&str], name: &str) -> bool {
    // On bytes, since every field of every message is looked for in every table.
    let name = name.as_bytes();
    patterns.iter().any(|pattern| match pattern.as_bytes() {
        [b'*'] => true,
        [b'*', part, b'*'] => name.contains(part),
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
    fn no_name_is_lost_by_its_first_character() {
        const FIELDS: [(Fields, &[&str]); 3] = [
            (Fields::of(&["via", "cf-*"]), &["via", "cf-", "cf-ray"]),
            (Fields::of(&["via", "*_*"]), &["via", "_", "a_b", "z_"]),
            (Fields::of(&["*"]), &["a", "~", "0"]),
        ];
        for (fields, names) in FIELDS {
            for name in names {
                assert!(fields.list(&HeaderName::from_static(name)), "{name}");
            }
        }
        assert!(!FIELDS[0].0.list(&HeaderName::from_static("v")));
        assert!(!FIELDS[0].0.list(&HeaderName::from_static("accept")));
    }

    #[test]
    fn options_come_from_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append("connection", " close ,, X-A".parse().expect("valid"));
        headers.append("connection", "x-b".parse().expect("valid"));
        assert!(options(&headers, &http::header::CONNECTION).eq([&b"close"[..], b"X-A", b"x-b"]));
    }
}
