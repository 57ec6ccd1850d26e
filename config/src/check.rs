//! Checks that go beyond a value's type: ranges, and keys that must fit together.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use url::{Host, Url};

use crate::limits::Rate;
use crate::node::Limit;
use crate::problem::{Problem, Source};

/// Collects what fails, with the place that the value came from.
pub(crate) struct Checks<'a> {
    sources_by_key: &'a BTreeMap<String, Source>,
    problems: Vec<Problem>,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(sources_by_key: &'a BTreeMap<String, Source>) -> Self {
        Self { sources_by_key, problems: Vec::new() }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(crate) fn require(&mut self, key: &str, holds: bool, message: impl Into<String>) {
        if !holds {
            let source = self.sources_by_key.get(key).cloned().unwrap_or(Source::Default);
            self.problems.push(Problem { key: key.to_owned(), source, message: message.into() });
        }
    }

    pub(crate) fn range<N: PartialOrd + Display>(&mut self, key: &str, value: N, range: RangeInclusive<N>) {
        let message = format!("{value} is not from {} to {}", range.start(), range.end());
        self.require(key, range.contains(&value), message);
    }

    pub(crate) fn limit(&mut self, key: &str, limit: Limit) {
        self.require(key, (1..=1_000_000).contains(&limit.requests), "requests is not from 1 to 1000000");
        self.require(key, (1..=86_400).contains(&limit.seconds), "seconds is not from 1 to 86400");
    }

    pub(crate) fn rate(&mut self, key: &str, rate: Rate) {
        self.require(key, (1..=1_000_000).contains(&rate.per_second), "per_second is not from 1 to 1000000");
        self.require(key, (1..=1_000_000).contains(&rate.burst), "burst is not from 1 to 1000000");
    }

    pub(crate) fn not_empty(&mut self, key: &str, text: &str) {
        self.require(key, !text.trim().is_empty(), "must not be empty");
    }

    /// Scheme, host and perhaps a port: what paths are appended to, and what an `Origin` header is compared with.
    pub(crate) fn origin(&mut self, key: &str, url: &Url) {
        let plain = is_base(url) && url.path() == "/";
        self.require(key, plain, "must be http:// or https://, a host and perhaps a port, and nothing after them");
    }

    /// The same, perhaps with a path: what others are below.
    pub(crate) fn base(&mut self, key: &str, url: &Url) {
        self.require(key, is_base(url), "must be http:// or https://, a host, and perhaps a port and a path");
    }

    /// Each an address or a name exactly as it is compared: lower case, without scheme, port or final dot.
    pub(crate) fn hosts(&mut self, key: &str, hosts: &[String]) {
        for host in hosts {
            let canonical = match host.parse::<IpAddr>() {
                Ok(address) => address.to_string() == *host,
                Err(_) => {
                    matches!(Host::parse(host), Ok(Host::Domain(name)) if name == *host && !name.ends_with('.'))
                }
            };
            self.require(key, canonical, format!("{host:?} is not a plain lower-case host name or an address"));
        }
    }

    /// Networks that are believed: not the whole world, which could then claim any address.
    pub(crate) fn some_networks(&mut self, key: &str, networks: &[IpNet]) {
        let everybody = networks.iter().any(|network| network.prefix_len() == 0);
        self.require(key, !everybody, "believes everybody: list the proxies' own networks");
    }

    /// No two of `listeners` may take the same port of the same address; port 0 is a free one and never does.
    pub(crate) fn distinct(&mut self, listeners: &[(&str, SocketAddr)]) {
        for (index, (key, address)) in listeners.iter().enumerate() {
            let clash = listeners[..index].iter().find(|(_, other)| overlap(*other, *address));
            if let Some((other, _)) = clash {
                self.require(key, false, format!("takes the same port as {other}"));
            }
        }
    }
}

fn is_base(url: &Url) -> bool {
    let bare =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    matches!(url.scheme(), "http" | "https") && url.has_host() && bare
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && same_address
}
