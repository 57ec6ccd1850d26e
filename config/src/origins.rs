//! The gateway's origins: one for all, or one for each rental under `gateway.sessions_host`.

use runit_core::HostLabel;
use url::{Host, Url};

use crate::check::Checks;
use crate::node::{Control, Gateway};

/// Longest name that a label of 26 digits and a dot still fit before (RFC 1035, section 2.3.4).
const SESSIONS_HOST_MAX: usize = 253 - 27;

impl Gateway {
    /// Scheme, host and port of the hand-over link, without a final slash.
    pub fn origin(&self) -> String {
        self.public_url.as_str().trim_end_matches('/').to_owned()
    }

    /// Scheme, host and port that a rental's pages live under, without a final slash: its own where rentals have host
    /// names, else the gateway's.
    pub fn session_origin(&self, label: HostLabel) -> String {
        let Some(sessions_host) = &self.sessions_host else { return self.origin() };
        let port = self.public_url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{label}.{sessions_host}{port}", self.public_url.scheme())
    }
}

/// Pages of a rental may set cookies for every name that theirs ends with, unless that is a public suffix: so nothing of
/// ours may be served at or below the sessions host. On one machine there is nobody to protect from.
pub(crate) fn check(gateway: &Gateway, control: &Control, checks: &mut Checks<'_>) {
    const KEY: &str = "gateway.sessions_host";
    let Some(name) = &gateway.sessions_host else { return };
    let plain = matches!(Host::parse(name), Ok(Host::Domain(parsed)) if parsed == *name && !name.ends_with('.'));
    let fits = plain && name.len() <= SESSIONS_HOST_MAX;
    checks.require(KEY, fits, "must be a plain lower-case host name, no address, and leave room for a label");
    if is_local(name) {
        return;
    }
    checks.require(
        KEY,
        gateway.public_url.scheme() == "https",
        "needs https:// in gateway.public_url unless it is local",
    );
    for (key, url) in [("gateway.public_url", &gateway.public_url), ("control.public_url", &control.public_url)] {
        checks.require(KEY, !is_at_or_below(url, name), format!("must not be the host of {key} or a parent of it"));
    }
}

/// `localhost` and what is below it never leave the machine (RFC 6761, section 6.3).
fn is_local(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn is_at_or_below(url: &Url, name: &str) -> bool {
    url.host_str().and_then(|host| host.strip_suffix(name)).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::SecretHash;

    #[test]
    fn a_rental_has_the_gateways_origin_or_one_of_its_own() {
        let label = HostLabel::of(SecretHash::of("token"));
        let mut gateway =
            Gateway { public_url: Url::parse("https://gateway.example").expect("valid"), ..Gateway::default() };
        assert_eq!(gateway.session_origin(label), "https://gateway.example");
        gateway.sessions_host = Some("notebooks.test".to_owned());
        assert_eq!(gateway.origin(), "https://gateway.example");
        assert_eq!(gateway.session_origin(label), format!("https://{label}.notebooks.test"));
        gateway.public_url = Url::parse("http://localhost:8080").expect("valid");
        assert_eq!(gateway.session_origin(label), format!("http://{label}.notebooks.test:8080"));
    }
}
