//! Which of our hosts a request is for, by its `Host`.
//!
//! Where rentals have host names of their own, names are compared exactly: one for the hand-over links, one for each
//! rental, and the rest are nobody's. Where they have none, every name will do, as the path says all.

use http::{HeaderMap, header};
use runit_core::{HostLabel, SecretHash};
use url::Url;

/// What is served under which name.
#[derive(Debug)]
pub(crate) struct Sites {
    apart: Option<Apart>,
}

#[derive(Debug)]
struct Apart {
    /// Of the public URL, in lower case.
    main: String,
    /// A dot, and the name that rentals' hosts are under.
    suffix: String,
    port: u16,
    /// What a `Host` without a port means.
    port_of_scheme: u16,
}

/// One of our hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// The only one, for all sessions.
    Shared,
    /// The one of the hand-over links, where no rental is.
    Main,
    /// A rental's own, whether there is one or not; no label is a name that none can have.
    Rental(Option<HostLabel>),
}

impl Site {
    /// Whether a token may take a lock by being presented here: on a rental's own host only the one that its name comes
    /// from.
    pub(crate) fn takes(self, token: SecretHash) -> bool {
        match self {
            Self::Shared | Self::Main => true,
            Self::Rental(label) => label == Some(HostLabel::of(token)),
        }
    }
}

impl Sites {
    /// As the settings say.
    pub(crate) fn new(gateway: &runit_config::Gateway) -> Self {
        let apart = gateway.sessions_host.as_ref().map(|name| Apart {
            main: gateway.public_url.host_str().unwrap_or_default().to_owned(),
            suffix: format!(".{name}"),
            port: gateway.public_url.port_or_known_default().unwrap_or_default(),
            port_of_scheme: port_of_scheme(&gateway.public_url),
        });
        Self { apart }
    }

    /// The site that a request names; none if it is not one of ours. `Host` is there once, as the request policy sees to.
    pub(crate) fn named_by(&self, headers: &HeaderMap) -> Option<Site> {
        let Some(apart) = &self.apart else { return Some(Site::Shared) };
        apart.site(headers.get(header::HOST)?.to_str().ok()?)
    }
}

impl Apart {
    fn site(&self, host: &str) -> Option<Site> {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, read_port(port)?),
            _ => (host, self.port_of_scheme),
        };
        let name = name.to_ascii_lowercase();
        if port != self.port {
            return None;
        }
        if name == self.main {
            return Some(Site::Main);
        }
        let label = name.strip_suffix(&self.suffix)?;
        Some(Site::Rental(label.parse().ok()))
    }
}

/// One spelling for each port.
fn read_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| port.to_string() == text)
}

fn port_of_scheme(url: &Url) -> u16 {
    if url.scheme() == "https" { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(public_url: &str, sessions_host: Option<&str>) -> Sites {
        Sites::new(&runit_config::Gateway {
            public_url: Url::parse(public_url).expect("valid"),
            sessions_host: sessions_host.map(str::to_owned),
            ..runit_config::Gateway::default()
        })
    }

    fn named(sites: &Sites, host: &str) -> Option<Site> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("valid"));
        sites.named_by(&headers)
    }

    #[test]
    fn names_are_compared_exactly_but_for_the_case_and_a_port_that_goes_without_saying() {
        let label = HostLabel::of(SecretHash::of("token"));
        let rental = Some(Site::Rental(Some(label)));
        let sites = sites("https://gateway.example", Some("notebooks.test"));
        for (host, expected) in [
            ("gateway.example", Some(Site::Main)),
            ("GATEWAY.example:443", Some(Site::Main)),
            ("gateway.example:80", None),
            ("gateway.example:0443", None),
            ("gateway.example:+443", None),
            ("gateway.example:", None),
            ("gateway.example.", None),
            ("gateway.example.evil", None),
            ("x.gateway.example", None),
            ("notebooks.test", None),
            (&*format!("{label}.notebooks.test"), rental),
            (&format!("{label}.Notebooks.test:443"), rental),
            (&format!("{label}.notebooks.test").to_uppercase(), rental),
            (&format!("{label}.notebooks.test:8443"), None),
            (&format!("{label}.notebooks.test."), None),
            (&format!("{label}.notebooks.test.evil"), None),
            (&format!("{label}.evilnotebooks.test"), None),
            (&format!("x.{label}.notebooks.test"), Some(Site::Rental(None))),
            ("www.notebooks.test", Some(Site::Rental(None))),
            (".notebooks.test", Some(Site::Rental(None))),
            ("127.0.0.1", None),
        ] {
            assert_eq!(named(&sites, host), expected, "{host}");
        }
    }

    #[test]
    fn a_port_of_the_public_url_must_be_named() {
        let sites = sites("http://[::1]:8080", Some("localhost"));
        for (host, expected) in [("[::1]:8080", Some(Site::Main)), ("[::1]", None), ("[::1]:80", None), ("[::1", None)]
        {
            assert_eq!(named(&sites, host), expected, "{host}");
        }
    }

    #[test]
    fn without_names_for_rentals_every_name_will_do() {
        assert_eq!(named(&sites("http://gateway.example", None), "whatever:1"), Some(Site::Shared));
    }
}
