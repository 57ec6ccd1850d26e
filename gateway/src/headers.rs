//! What is changed on the way to the provider and on the way back; everything else passes as it is.

use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use runit_core::SessionView;
use runit_core::session::base_path;

use crate::answer_policy::{self, BadAnswer};
use crate::credentials::{COOKIE_PREFIX, foreign_cookies, without_tokens};
use crate::fields::named_by_connection;
use crate::isolation::isolate_providers;
use crate::request_policy;

/// Who passes this on, under a name that tells nothing (RFC 9110, section 7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 runit");

/// Fields that are added to an answer.
const OURS: usize = 12;

/// A renter's request as the provider gets it, where it is not Pingora that sends it on. Without the renter's spelling of
/// names, which costs a second map and says nothing (RFC 9110, section 5.1).
pub(crate) fn for_provider(request: &RequestHeader, session: &SessionView) -> pingora::Result<RequestHeader> {
    let mut ours = RequestHeader::from(request.as_owned_parts());
    if ours.raw_path() != request.raw_path() {
        ours.set_raw_path(request.raw_path())?;
    }
    for name in &named_by_connection(&request.headers) {
        ours.remove_header(name);
    }
    ours.remove_header(&header::CONNECTION);
    ours.remove_header(&header::UPGRADE);
    to_provider(&mut ours, session)?;
    Ok(ours)
}

/// A provider's answer to be made the gateway's own, where it is not Pingora that passes it on; without spelling, too.
pub(crate) fn for_renter(answer: &ResponseHeader) -> ResponseHeader {
    let mut parts = answer.as_owned_parts();
    parts.headers.reserve(OURS);
    ResponseHeader::from(parts)
}

/// Makes a renter's request the gateway's own towards the provider.
///
/// Runs after Pingora's hop-by-hop strip: what is set here cannot be named away by the renter's `Connection`.
pub(crate) fn to_provider(request: &mut RequestHeader, session: &SessionView) -> pingora::Result<()> {
    let stripped: Vec<HeaderName> =
        request.headers.keys().filter(|name| request_policy::strips(name)).cloned().collect();
    for name in stripped {
        request.remove_header(&name);
    }
    request.set_version(Version::HTTP_11);
    request.insert_header(header::VIA, VIA)?;
    match foreign_cookies(&request.headers) {
        Some(cookies) => request.insert_header(header::COOKIE, cookies)?,
        None => drop(request.remove_header(&header::COOKIE)),
    }
    request.insert_header(header::AUTHORIZATION, ["token ", session.credential.expose()].concat())?;
    request.insert_header(header::HOST, session.upstream.authority())?;
    if request.headers.contains_key(header::ORIGIN) {
        request.insert_header(header::ORIGIN, session.upstream.to_string())?;
    }
    let raw = request.raw_path();
    if let Some(at) = raw.iter().position(|&c| c == b'?') {
        let query = without_tokens(&raw[at + 1..]);
        if query.len() != raw.len() - at - 1 {
            let mut target = raw[..at].to_vec();
            if !query.is_empty() {
                target.push(b'?');
                target.extend(query);
            }
            request.set_raw_path(&target)?;
        }
    }
    Ok(())
}

/// Makes a provider's answer the gateway's own towards the renter. `to_upgrade` tells whether the request was a WebSocket
/// handshake.
///
/// # Errors
/// [`BadAnswer`] for what must not reach the renter at all.
pub(crate) fn to_renter(
    answer: &mut ResponseHeader,
    session: &SessionView,
    to_upgrade: bool,
    secure: bool,
) -> Result<(), BadAnswer> {
    answer_policy::clean(answer, to_upgrade)?;
    if answer.status.is_informational() {
        return Ok(());
    }
    clean_cookies(answer, session, secure);
    let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    if let Some(path) = location.and_then(|location| own_location(location, session)) {
        answer.insert_header(header::LOCATION, path).map_err(|_| BadAnswer("a location of other characters"))?;
    }
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    isolate_providers(answer).map_err(|_| BadAnswer("no room for fields of ours"))
}

/// Drops cookies that would be taken for ours or that name the tunnel, and widens none: no `Domain`, and no `Path` beyond
/// the session's own.
fn clean_cookies(answer: &mut ResponseHeader, session: &SessionView, secure: bool) {
    let cookies: Vec<HeaderValue> = answer.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if cookies.is_empty() {
        return;
    }
    answer.remove_header(&header::SET_COOKIE);
    for cookie in cookies.iter().filter_map(|cookie| clean_cookie(cookie, session, secure)) {
        // Cannot fail: it was a header value before, less some of its parts.
        let _ = answer.append_header(header::SET_COOKIE, cookie);
    }
}

fn clean_cookie(cookie: &HeaderValue, session: &SessionView, secure: bool) -> Option<HeaderValue> {
    let mut parts = cookie.as_bytes().split(|&c| c == b';').map(<[u8]>::trim_ascii);
    let pair = parts.next()?;
    let name = pair.split(|&c| c == b'=').next()?.trim_ascii();
    // `__Host-` and `__Secure-` promise what only the gateway can (RFC 6265bis, section 4.1.3).
    let lower = name.to_ascii_lowercase();
    let ours = [COOKIE_PREFIX.as_bytes(), b"__host-", b"__secure-"].iter().any(|prefix| lower.starts_with(prefix));
    if name.is_empty() || ours || names_the_tunnel(&lower, session.upstream.host()) {
        return None;
    }
    let base = base_path(session.id);
    let kept = parts.filter_map(|part| {
        let mut sides = part.splitn(2, |&c| c == b'=').map(<[u8]>::trim_ascii);
        let (attribute, value) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
        match &attribute.to_ascii_lowercase()[..] {
            b"domain" => None,
            b"secure" => secure.then(|| part.to_vec()),
            b"path" if !is_within(value, &base) => Some(format!("Path={base}").into_bytes()),
            _ => Some(part.to_vec()),
        }
    });
    let parts: Vec<Vec<u8>> = std::iter::once(pair.to_vec()).chain(kept).collect();
    HeaderValue::from_bytes(&parts.join(&b"; "[..])).ok()
}

/// Whether a cookie's path is the session's or below it, by the prefix that browsers compare (RFC 6265, section 5.1.4).
fn is_within(path: &[u8], base: &str) -> bool {
    path.starts_with(base.as_bytes()) || path == base.trim_end_matches('/').as_bytes()
}

/// Jupyter calls its login cookie `username-<host>`, with `-` for all that is not a letter or digit.
fn names_the_tunnel(name: &[u8], host: &str) -> bool {
    let plain = |c: &u8| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { b'-' };
    let name: Vec<u8> = name.iter().map(plain).collect();
    let host: Vec<u8> = host.as_bytes().iter().map(plain).collect();
    name.windows(host.len().max(1)).any(|window| window == host)
}

/// The path of a `Location` that names the provider itself; others are left alone.
fn own_location(location: &str, session: &SessionView) -> Option<String> {
    let rest = location.strip_prefix("https:").or_else(|| location.strip_prefix("http:")).unwrap_or(location);
    let rest = rest.strip_prefix("//")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let ours = authority.eq_ignore_ascii_case(&session.upstream.authority())
        || host.eq_ignore_ascii_case(session.upstream.host());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    // `//` at its beginning would make the browser read a host there.
    ours.then(|| format!("/{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests;
