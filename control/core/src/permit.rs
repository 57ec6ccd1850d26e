//! Whether a request may pass: the one decision that the data plane takes on every request.
//!
//! A [`Permit`] can only come from [`authorize`], and only a permit opens an upstream or a budget.

use crate::address::{LockMode, RenterAddress};
use crate::id::SessionId;
use crate::secret::SecretHash;
use crate::session::{SessionStatus, SessionView};

/// What a request presents, hashed.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    /// Cookies of the session's name. More than one where a foreign page has set one for a parent of our host, which does
    /// not spoil the one that is ours.
    pub cookies: Vec<SecretHash>,
    /// Tokens from `Authorization` and `?token=`, in this order. JupyterLab sends one of its own in the header, so one
    /// that is not ours does not spoil one that is.
    pub tokens: Vec<SecretHash>,
}

/// Proof that a request may use a session, until its lock changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    session: SessionId,
    address_differs: bool,
    by_token: bool,
}

impl Permit {
    /// The session that may be used.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Whether another address holds the lock; only with [`LockMode::Observe`] or [`LockMode::Prefix`].
    pub const fn address_differs(&self) -> bool {
        self.address_differs
    }

    /// Whether an explicit token was presented, which no other web site can make a browser do.
    pub const fn by_token(&self) -> bool {
        self.by_token
    }
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// No token and no cookie.
    #[error("no credential")]
    NoCredential,
    /// A token or cookie that opens nothing here.
    #[error("invalid or expired token")]
    InvalidToken,
    /// The right token, in another browser than the one that took the lock.
    #[error("session already in use")]
    AlreadyInUse,
    /// The right token or cookie, from another address than the lock's.
    #[error("address mismatch")]
    AddressMismatch,
}

/// What to do about a request for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may pass.
    Pass(Permit),
    /// A token that opens nothing as far as this node knows, which may lag behind: the authority decides whether it takes the
    /// session, or has taken it.
    AskAuthority,
}

/// Decides on a request from `address` for `session`.
///
/// # Errors
/// The [`Rejection`] to answer with.
pub fn authorize(
    session: &SessionView,
    presented: &Presented,
    address: RenterAddress,
    mode: LockMode,
) -> Result<Decision, Rejection> {
    if presented.cookies.is_empty() && presented.tokens.is_empty() {
        return Err(Rejection::NoCredential);
    }
    match (&session.lock, session.status) {
        (Some(lock), SessionStatus::Locked) => {
            let by_token = presented.tokens.contains(&lock.token);
            let by_cookie = lock.cookie.is_some_and(|cookie| presented.cookies.contains(&cookie));
            if !by_token && !by_cookie {
                return unknown(presented);
            }
            if !mode.admits(lock.address, address) {
                return Err(Rejection::AddressMismatch);
            }
            let address_differs = lock.address != address;
            Ok(Decision::Pass(Permit { session: session.id, address_differs, by_token }))
        }
        _ => unknown(presented),
    }
}

/// A token may be newer than what this node knows; a cookie comes from a node that has told this one before, or from nobody.
const fn unknown(presented: &Presented) -> Result<Decision, Rejection> {
    if presented.tokens.is_empty() { Err(Rejection::InvalidToken) } else { Ok(Decision::AskAuthority) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::session::Lock;
    use crate::time::Timestamp;
    use crate::upstream::{UpstreamPolicy, UpstreamUrl};
    use uuid::Uuid;

    fn address(last: u8) -> RenterAddress {
        RenterAddress::new([127, 0, 0, last].into())
    }

    fn session(lock: Option<Lock>, status: SessionStatus) -> SessionView {
        SessionView {
            id: SessionId::from_uuid(Uuid::from_u128(1)),
            revision: 1,
            status,
            ending: None,
            lock: lock.map(Box::new),
            upstream: UpstreamUrl::parse("https://a-b.trycloudflare.com", &UpstreamPolicy::default()).expect("valid"),
            credential: Secret::new("upstream"),
            cap_bytes: 1,
        }
    }

    fn locked() -> SessionView {
        let now = Timestamp::default();
        let lock = Lock {
            token: SecretHash::of("token"),
            address: address(1),
            cookie: Some(SecretHash::of("cookie")),
            taken_at: now,
            renter_seen_at: now,
        };
        session(Some(lock), SessionStatus::Locked)
    }

    fn presented(cookie: Option<&str>, tokens: &[&str]) -> Presented {
        Presented {
            cookies: cookie.map(SecretHash::of).into_iter().collect(),
            tokens: tokens.iter().map(|token| SecretHash::of(token)).collect(),
        }
    }

    fn decide(presented: &Presented, last: u8, mode: LockMode) -> Result<Decision, Rejection> {
        authorize(&locked(), presented, address(last), mode)
    }

    #[test]
    fn token_or_cookie_pass_from_the_locks_address() {
        for credential in [
            presented(Some("cookie"), &[]),
            presented(None, &["token"]),
            presented(Some("cookie"), &["jupyter's own"]),
            presented(Some("stale"), &["jupyter's own", "token"]),
        ] {
            let decision = decide(&credential, 1, LockMode::Exact);
            assert!(matches!(decision, Ok(Decision::Pass(_))), "{decision:?}");
        }
    }

    #[test]
    fn a_cookie_of_the_same_name_from_elsewhere_spoils_nothing() {
        let cookies = ["tossed", "cookie"].map(SecretHash::of).to_vec();
        let decision = decide(&Presented { cookies, tokens: Vec::new() }, 1, LockMode::Exact);
        assert!(matches!(decision, Ok(Decision::Pass(_))), "{decision:?}");
    }

    #[test]
    fn neither_token_nor_cookie_pass_from_another_address() {
        for credential in [presented(Some("cookie"), &[]), presented(None, &["token"])] {
            assert_eq!(decide(&credential, 2, LockMode::Exact), Err(Rejection::AddressMismatch));
        }
    }

    #[test]
    fn a_wrong_credential_is_not_told_whose_address_it_would_need() {
        let by_token = decide(&presented(None, &["guess"]), 2, LockMode::Exact);
        assert_eq!(by_token, Ok(Decision::AskAuthority));
        let by_cookie = decide(&presented(Some("guess"), &[]), 2, LockMode::Exact);
        assert_eq!(by_cookie, Err(Rejection::InvalidToken));
        assert_eq!(decide(&presented(None, &[]), 1, LockMode::Exact), Err(Rejection::NoCredential));
    }

    #[test]
    fn a_lock_without_a_cookie_is_not_opened_by_the_lack_of_one() {
        let mut view = locked();
        if let Some(lock) = &mut view.lock {
            lock.cookie = None;
        }
        let decision = authorize(&view, &presented(Some("guess"), &[]), address(1), LockMode::Exact);
        assert_eq!(decision, Err(Rejection::InvalidToken));
    }

    #[test]
    fn observed_differences_are_marked_on_the_permit() {
        let decision = decide(&presented(None, &["token"]), 2, LockMode::Observe);
        assert!(matches!(decision, Ok(Decision::Pass(permit)) if permit.address_differs() && permit.by_token()));
    }

    #[test]
    fn a_token_that_is_not_known_here_is_the_authoritys_to_judge_and_a_cookie_is_refused() {
        let free = session(None, SessionStatus::Ready);
        let by_token = presented(None, &["token"]);
        let by_cookie = presented(Some("cookie"), &[]);
        for view in [free, session(None, SessionStatus::Recycling), session(None, SessionStatus::Removed)] {
            assert_eq!(authorize(&view, &by_token, address(1), LockMode::Exact), Ok(Decision::AskAuthority));
            assert_eq!(authorize(&view, &by_cookie, address(1), LockMode::Exact), Err(Rejection::InvalidToken));
        }
    }
}
