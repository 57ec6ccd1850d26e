//! Webhooks: what is sent when an event happens, how it is signed, and when it is tried again.
//!
//! Form and signature are those of the Standard Webhooks specification (version 1): `webhook-id`, `webhook-timestamp` and
//! `webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`, with a secret `whsec_<base64>`.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use crate::event::SecurityEvent;
use crate::time::Timestamp;
use crate::upstream::is_public;

/// Longest time between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Bytes that a secret must have: below this it could be guessed.
const SECRET_MIN_BYTES: usize = 24;
const SECRET_MAX_BYTES: usize = 64;

/// Where a webhook may be sent. Its host's addresses pass the same check as an upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    url: Url,
    host: String,
    port: u16,
    is_local: bool,
}

/// The URL is not one that a webhook is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be https://host[:port]/path without user or fragment; http:// only for webhooks.plain_http_hosts")]
pub struct InvalidUrl;

/// The secret is not one of the standard's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

/// What a receiver verifies messages with.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

/// One message: the same id at each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What a receiver tells repetitions by.
    pub id: String,
    /// JSON.
    pub body: String,
}

impl WebhookUrl {
    /// Checks a URL that an operator gave. `plain_http_hosts` may be inside, and be spoken to without TLS: a list of their own, as
    /// whoever registers a session may name every host of the upstreams' one.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn parse(text: &str, plain_http_hosts: &[String]) -> Result<Self, InvalidUrl> {
        let url = Url::parse(text).map_err(|_| InvalidUrl)?;
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(InvalidUrl),
        };
        let is_local = plain_http_hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&host));
        let scheme_fits = url.scheme() == "https" || url.scheme() == "http" && is_local;
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let port = url.port_or_known_default().ok_or(InvalidUrl)?;
        if scheme_fits && plain { Ok(Self { url, host, port, is_local }) } else { Err(InvalidUrl) }
    }

    /// The URL.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Host name, or address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether `address`, which the host resolved to, may be dialled.
    pub fn may_dial(&self, address: IpAddr) -> bool {
        self.is_local || is_public(address)
    }
}

impl WebhookSecret {
    /// Reads a secret.
    ///
    /// # Errors
    /// [`InvalidSecret`].
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix("whsec_").ok_or(InvalidSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        let fits = (SECRET_MIN_BYTES..=SECRET_MAX_BYTES).contains(&bytes.len());
        if fits { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// The value of `webhook-signature` for an attempt at that time (`webhook-timestamp`, seconds since the Unix epoch).
    pub fn sign(&self, message: &Message, unix_seconds: u64) -> String {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        let mac = mac.chain_update(format!("{}.{unix_seconds}.", message.id)).chain_update(&message.body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

impl Message {
    /// Tells a target of an event. The id follows from the target, the place and the event, so that whoever sends this
    /// again, after a restart or beside another process, sends it under the same one.
    pub fn of_event(target: &str, place: u64, event: &SecurityEvent) -> Self {
        let mut data = event.details();
        data.insert("place".into(), place.into());
        let body =
            json!({ "type": event.kind.as_str(), "timestamp": event.at.to_string(), "data": Value::Object(data) });
        Self::new(target, &body)
    }

    /// What an operator sends to see whether it arrives.
    pub fn test(target: &str, now: Timestamp) -> Self {
        Self::new(target, &json!({ "type": "TEST", "timestamp": now.to_string(), "data": {} }))
    }

    fn new(target: &str, body: &Value) -> Self {
        let body = body.to_string();
        let digest = Sha256::new_with_prefix(target).chain_update("\n").chain_update(&body).finalize();
        let id = digest.iter().take(16).fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        Self { id, body }
    }
}

/// How long to wait after the `failures`th failure in a row: doubled each time up to an hour, of which the upper half is left
/// to chance (`jitter`, any number), so that receivers that come back are not met by everybody at once.
pub fn pause(first: Duration, failures: u32, jitter: u64) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let longest = doubled.min(LONGEST_PAUSE);
    let half = longest / 2;
    half + half.mul_f64((jitter % 1_000) as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    #[test]
    fn the_signature_is_the_standards() {
        // The example of the specification's reference libraries.
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("valid");
        let message = Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), body: "{\"test\": 2432232314}".into() };
        assert_eq!(secret.sign(&message, 1_614_265_330), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_event_has_one_id_for_each_target_and_another_event_another() {
        let event = SecurityEvent::new(EventKind::SessionCut, Timestamp::from_unix_ms(1_795_334_400_007));
        let message = Message::of_event("ops", 7, &event);
        assert_eq!(message.body, r#"{"data":{"place":7},"timestamp":"2026-11-22T08:00:00.007Z","type":"SESSION_CUT"}"#);
        assert_eq!(message, Message::of_event("ops", 7, &event));
        assert_ne!(message.id, Message::of_event("ops", 8, &event).id);
        assert_ne!(message.id, Message::of_event("other", 7, &event).id);
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_differ() {
        let first = Duration::from_secs(1);
        let bounds = |failures| (pause(first, failures, 0).as_millis(), pause(first, failures, 999).as_millis());
        assert_eq!(bounds(1), (500, 999));
        assert_eq!(bounds(4), (4_000, 7_996));
        for failures in [13, 33, 1_000, u32::MAX] {
            assert_eq!(bounds(failures).0, 1_800_000, "{failures}");
            assert!(bounds(failures).1 <= 3_600_000);
        }
    }

    #[test]
    fn targets_are_public_https_unless_they_are_listed() {
        let parse = |text: &str| WebhookUrl::parse(text, &["127.0.0.1".into()]);
        let public = parse("https://hooks.example.org/runit?x=1").expect("public");
        for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(!public.may_dial(address.parse().expect("a literal")), "{address}");
        }
        assert!(public.may_dial("1.1.1.1".parse().expect("a literal")));
        assert!(parse("http://127.0.0.1:9000/hook").expect("listed").may_dial("127.0.0.1".parse().expect("a literal")));
        for bad in [
            "http://hooks.example.org/",
            "https://user@hooks.example.org/",
            "https://h.example.org/#x",
            "ftp://a/",
            "x",
        ] {
            assert_eq!(parse(bad), Err(InvalidUrl), "{bad}");
        }
    }

    #[test]
    fn a_weak_or_malformed_secret_is_refused() {
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_***"] {
            assert!(WebhookSecret::parse(bad).is_err(), "{bad}");
        }
    }
}
