//! Which place a request target names, decided once and on its decoded form.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use runit_core::{AccessToken, SessionId};

use crate::ticket::Ticket;

/// Layers of percent-encoding in a path. Jupyter's own clients use one.
const MAX_LAYERS: usize = 4;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/access/{token}`: the hand-over link.
    Access(AccessToken),
    /// `/access/{ticket}`: the way from there into a rental's own host.
    Ticket(Ticket),
    /// `/s/{sessionId}/...`: a session's Jupyter.
    Session(SessionId, Place),
}

/// Where in a session's Jupyter a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Anywhere that a renter may go.
    Open,
    /// A call that would stop the server or sign it out for everybody: `api/shutdown`, `logout`.
    Closed,
    /// `/s/{sessionId}` without its final slash.
    MissingSlash,
}

/// Why a target names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadTarget {
    /// Not in origin form, or with dot segments.
    Malformed,
    /// Nothing is there.
    Unknown,
}

/// Reads the path of a request target (origin form, RFC 9112, section 3.2.1), without its query.
///
/// Dot segments are refused in every spelling rather than resolved: no client of Jupyter sends them, and a server
/// behind us might resolve them differently. Tunnels are known to decode a path once before Jupyter does (cloudflared
/// 2026.8), so what is decided on is the path after as many decodings as change it.
pub(crate) fn read(path: &[u8]) -> Result<Target, BadTarget> {
    if path.first() != Some(&b'/') || path.contains(&b'#') {
        return Err(BadTarget::Malformed);
    }
    let decoded = decoded(path).ok_or(BadTarget::Malformed)?;
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    if decoded.iter().any(|c| matches!(c, 0 | b'\r' | b'\n'))
        || decoded.split(|&c| c == b'/' || c == b'\\').any(is_dots)
    {
        return Err(BadTarget::Malformed);
    }
    if let Some(word) = path.strip_prefix(b"/access/") {
        let word = std::str::from_utf8(word).map_err(|_| BadTarget::Unknown)?;
        let token = AccessToken::parse(word).map(Target::Access);
        return token.or_else(|| Ticket::parse(word).map(Target::Ticket)).ok_or(BadTarget::Unknown);
    }
    let rest = path.strip_prefix(b"/s/").ok_or(BadTarget::Unknown)?;
    let end = rest.iter().position(|&c| c == b'/').unwrap_or(rest.len());
    let id = std::str::from_utf8(&rest[..end]).ok().and_then(|id| id.parse().ok()).ok_or(BadTarget::Unknown)?;
    let place = match decoded.get(b"/s/".len() + end..) {
        None | Some(b"") => Place::MissingSlash,
        Some(inner) => place(inner),
    };
    Ok(Target::Session(id, place))
}

/// Without any percent-encoding that a server could still decode; `None` if there are more layers than anybody means.
fn decoded(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut path = Cow::Borrowed(path);
    for _ in 0..MAX_LAYERS {
        if !path.contains(&b'%') {
            return Some(path);
        }
        let next: Vec<u8> = percent_decode(&path).collect();
        if next == *path {
            return Some(path);
        }
        path = Cow::Owned(next);
    }
    None
}

/// Tornado matches the decoded path; repeated slashes are folded here, and backslashes turned, so that no spelling slips
/// through.
fn place(inner: &[u8]) -> Place {
    let mut segments = inner.split(|&c| c == b'/' || c == b'\\').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next()) {
        (Some(b"api"), Some(b"shutdown"), None) | (Some(b"logout"), None, None) => Place::Closed,
        _ => Place::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-4000-8000-000000000001";

    fn session(rest: &str) -> Result<Target, BadTarget> {
        read(format!("/s/{ID}{rest}").as_bytes())
    }

    fn place_of(rest: &str) -> Option<Place> {
        match session(rest) {
            Ok(Target::Session(_, place)) => Some(place),
            _ => None,
        }
    }

    #[test]
    fn session_paths_are_read_and_their_rest_is_free() {
        for rest in [
            "/",
            "/lab",
            "/api/contents/a%2Fb",
            "//x",
            "/files/a..b/...",
            "/files/100%25",
            "/files/%",
            "/a%25b%09",
            "/api/shutdown/x",
            "/lab/tree/logout",
        ] {
            assert_eq!(place_of(rest), Some(Place::Open), "{rest}");
        }
        assert_eq!(place_of(""), Some(Place::MissingSlash));
    }

    #[test]
    fn calls_that_stop_the_server_are_closed_in_every_spelling() {
        for rest in [
            "/api/shutdown",
            "/api/shutdown/",
            "//api//shutdown",
            "/%61pi/shutdown",
            "/api%2Fshutdown",
            "/api\\shutdown",
            "/logout",
            "/logout%2f%5c",
        ] {
            let twice = rest.replace('%', "%25");
            assert_eq!(place_of(&twice), Some(Place::Closed), "{twice}");
            assert_eq!(place_of(rest), Some(Place::Closed), "{rest}");
        }
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for rest in ["/..", "/../x", "/%2e%2e/x", "/.%2E/", "/./x", "/a/..%2f..", "/a%5c..%5cb", "/x\0", "/x%00"] {
            for spelling in [rest.to_owned(), rest.replace('%', "%25"), rest.replace('%', "%25%32%35")] {
                assert_eq!(session(&spelling), Err(BadTarget::Malformed), "{spelling}");
            }
        }
        for rest in ["/x#/../", "/x%0d%0aY", "/x\nY", "/%252525252e"] {
            assert_eq!(session(rest), Err(BadTarget::Malformed), "{rest}");
        }
    }

    #[test]
    fn what_is_not_a_path_of_ours_is_unknown_or_malformed() {
        for path in ["*", "", "foo", "http://a/s/x"] {
            assert_eq!(read(path.as_bytes()), Err(BadTarget::Malformed), "{path}");
        }
        for path in ["/", "/s/", "/s/guess/lab", "/S/", "//s/", "/access/", "/access/guess", "/access"] {
            assert_eq!(read(path.as_bytes()), Err(BadTarget::Unknown), "{path}");
        }
        assert_eq!(read(format!("/s/{}/", ID.to_uppercase().replace('0', "A")).as_bytes()), Err(BadTarget::Unknown));
    }

    #[test]
    fn the_hand_over_link_is_read() {
        let token = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let target = read(format!("/access/{token}").as_bytes());
        assert!(matches!(target, Ok(Target::Access(t)) if t.expose() == token));
    }
}
