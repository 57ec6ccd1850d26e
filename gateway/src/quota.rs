//! What a renter can see of the cap in every answer, and when the audit trail hears that it comes near.
//!
//! `RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers (version 10): `"daily";q=<cap
//! bytes>;w=86400` and `"daily";r=<bytes left>;t=<seconds until more come free>`.

use http::{HeaderName, HeaderValue};
use runit_core::ledger::{Standing, WINDOW};
use runit_core::{EventKind, Timestamp};

pub(crate) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(crate) const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A session's standing as this node last heard it.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    cap: u64,
    /// The policy field, which is the same with every answer.
    policy: HeaderValue,
    /// Left at the time of hearing.
    remaining: u64,
    next_free_at: Option<Timestamp>,
    /// What this node had told the ledger of in all before it heard.
    told_then: u64,
}

impl Quota {
    /// Notes a standing that has the first `told_then` of all bytes that this node spends.
    pub(crate) fn new(standing: &Standing, told_then: u64) -> Self {
        let &Standing { cap, remaining, next_free_at, .. } = standing;
        let policy = format!("\"daily\";q={cap};w={}", WINDOW.as_secs());
        let policy = HeaderValue::try_from(policy).expect("digits and quotes");
        Self { cap, policy, remaining, next_free_at, told_then }
    }

    /// The policy field.
    pub(crate) fn policy_field(&self) -> HeaderValue {
        self.policy.clone()
    }

    /// The field that moves.
    pub(crate) fn limit_field(&self, spent_now: u64, now: Timestamp) -> String {
        let reset = self.next_free_at.map(|at| format!(";t={}", at.since(now).as_secs())).unwrap_or_default();
        format!("\"daily\";r={}{reset}", self.remaining(spent_now))
    }

    /// The warning that this standing deserves, the gravest first.
    pub(crate) fn warning(&self) -> Option<EventKind> {
        let used = u128::from(self.cap.saturating_sub(self.remaining)) * 100;
        let reached = |percent: u128| self.cap > 0 && used >= u128::from(self.cap) * percent;
        if reached(95) {
            Some(EventKind::Bandwidth95Percent)
        } else if reached(80) {
            Some(EventKind::Bandwidth80Percent)
        } else {
            None
        }
    }

    const fn remaining(&self, spent_now: u64) -> u64 {
        self.remaining.saturating_sub(spent_now.saturating_sub(self.told_then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::ledger::Usage;

    fn quota(cap: u64, remaining: u64) -> Quota {
        let next_free_at = Some(Timestamp::from_unix_ms(90_000));
        Quota::new(&Standing { used: Usage::default(), reserved: 0, cap, remaining, next_free_at }, 10)
    }

    #[test]
    fn the_fields_follow_what_was_spent_since() {
        let quota = quota(1000, 500);
        assert_eq!(quota.policy_field(), "\"daily\";q=1000;w=86400");
        assert_eq!(quota.limit_field(10, Timestamp::from_unix_ms(30_000)), "\"daily\";r=500;t=60");
        assert_eq!(quota.limit_field(110, Timestamp::from_unix_ms(100_000)), "\"daily\";r=400;t=0");
        assert_eq!(quota.limit_field(9_999, Timestamp::from_unix_ms(0)), "\"daily\";r=0;t=90");
    }

    #[test]
    fn warnings_come_at_80_and_at_95_percent() {
        let warning = |remaining| quota(1000, remaining).warning();
        assert_eq!((warning(201), warning(200)), (None, Some(EventKind::Bandwidth80Percent)));
        assert_eq!(
            (warning(51), warning(50)),
            (Some(EventKind::Bandwidth80Percent), Some(EventKind::Bandwidth95Percent))
        );
        assert_eq!(quota(0, 0).warning(), None);
        assert_eq!(quota(u64::MAX, 0).warning(), Some(EventKind::Bandwidth95Percent));
    }
}
