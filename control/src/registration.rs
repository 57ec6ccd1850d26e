//! What providers ask: register, refresh, deregister, and say that they are there.
//!
//! Invariant: only who presents the secret that a session was registered with changes it; the secret is drawn here, given
//! out once, and kept as a hash.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runit_core::event::{EventKind, SecurityEvent};
use runit_core::session::{Change, Offer, Session, SessionStatus, base_path};
use runit_core::store::Registration;
use runit_core::upstream::UpstreamUrl;
use runit_core::{AccessToken, KeyId, ProviderId, RenterAddress, Secret, SecretHash, SessionId, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::api::problem::Problem;
use crate::control::{Control, removed};
use crate::random;

/// Longest credential of an upstream; it has to fit into a request head.
const CREDENTIAL_CHARS: usize = 4096;
/// Longest description of hardware or price, as JSON text: it goes into everybody's list.
const DESCRIPTION_BYTES: usize = 4096;

/// A session that a provider offers.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewSession {
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._:@-]+$", example = "gpu-box")]
    provider_id: String,
    /// `https://<label>.trycloudflare.com`, or a host that the operator lists; no path, user or query.
    #[schema(format = "uri", example = "https://calm-red-fox.trycloudflare.com")]
    public_url: String,
    /// What the upstream wants as `Authorization: token ...`; visible ASCII characters, kept sealed.
    #[schema(min_length = 1, max_length = 4096)]
    token: String,
    /// Any JSON up to 4096 bytes; shown to everybody as it is.
    #[schema(value_type = Value, required = false)]
    hardware: Option<Box<RawValue>>,
    /// Any JSON up to 4096 bytes; shown to everybody as it is.
    #[schema(value_type = Value, required = false)]
    pricing: Option<Box<RawValue>>,
    /// The agent's own id. A known one needs its secret and the same `providerId`.
    #[schema(format = Uuid)]
    session_id: Option<String>,
    /// `/s/<sessionId>/`, and nothing else.
    base_path: Option<String>,
}

/// A new tunnel, a fresh workspace (by its new token), or both.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewTunnel {
    #[schema(format = "uri", example = "https://calm-red-fox.trycloudflare.com")]
    public_url: String,
    /// Another one than before says that the workspace behind it is fresh.
    #[schema(min_length = 1, max_length = 4096)]
    token: String,
}

/// What a provider proves itself with when it registers.
pub(crate) struct Presented {
    /// The secret of a session that is known.
    pub(crate) secret: Option<Secret>,
    /// The provider's key.
    pub(crate) key: Option<Secret>,
}

/// What a registration is answered with.
pub(crate) struct Registered {
    pub(crate) session: Session,
    /// One for the provider to hand to a renter; none while the session is not free.
    pub(crate) token: Option<AccessToken>,
    pub(crate) secret: Secret,
}

impl Control {
    /// Registers a session, or one that is known again; keeps the trail of that, also of a body that cannot be read.
    pub(crate) async fn register(
        &self,
        body: Result<NewSession, Problem>,
        presented: Presented,
        from: RenterAddress,
    ) -> Result<Registered, Problem> {
        let claimed = body.as_ref().ok().and_then(|body| body.provider_id.parse().ok());
        let outcome = match body {
            Ok(body) => self.try_register(body, presented).await,
            Err(problem) => Err(problem),
        };
        let now = self.sessions.clock.now();
        let event = match &outcome {
            Ok((registered, true)) => Some(
                SecurityEvent::new(EventKind::NewProviderRegistered, now)
                    .session(registered.session.id)
                    .provider(registered.session.provider.clone()),
            ),
            Ok((_, false)) => None,
            Err(problem) => refused_registration(problem)
                .map(|kind| SecurityEvent { provider: claimed, ..SecurityEvent::new(kind, now) }),
        };
        if let Some(event) = event {
            self.note(event.address(from)).await;
        }
        outcome.map(|(registered, _)| registered)
    }

    /// The session that `secret` proves to be the caller's.
    pub(crate) fn owned(&self, id: SessionId, secret: Option<&Secret>) -> Result<Arc<Session>, Problem> {
        let session = self.sessions.directory.session(id).ok_or(Problem::UnknownSession)?;
        match secret {
            Some(secret) if secret.hash() == session.provider_secret => Ok(session),
            _ => Err(Problem::WrongSecret),
        }
    }

    /// A new URL, a fresh workspace, or both.
    pub(crate) async fn refresh(&self, known: &Session, body: NewTunnel) -> Result<Session, Problem> {
        let upstream = self.upstream(&body.public_url)?;
        let (hardware, pricing) = (known.offer.hardware.clone(), known.offer.pricing.clone());
        let offer = self.offer(known.id, upstream, &body.token, hardware, pricing)?;
        let session = self.sessions.change(known.id, Change::Refresh(offer)).await?;
        self.reports.is_back(session.id);
        Ok(session)
    }

    /// The provider takes its session back.
    pub(crate) async fn deregister(&self, id: SessionId) -> Result<(), Problem> {
        let session = self.sessions.change(id, Change::Remove).await?;
        self.note(removed(&session, self.sessions.clock.now())).await;
        Ok(())
    }

    /// The agent is there; answers the session as the directory has it. Where the store is away for long, nobody else would
    /// hear of it, nor this process of what others decide: then the agent has to find another one, or wait.
    pub(crate) fn heartbeat(&self, id: SessionId, secret: Option<&Secret>) -> Result<SessionStatus, Problem> {
        if self.hearing.is_cut_off(Instant::now()) {
            return Err(Problem::Unavailable);
        }
        let session = self.owned(id, secret)?;
        self.heartbeats.note(id, self.sessions.clock.now(), self.heartbeat_refresh());
        Ok(session.status())
    }

    /// How old the written time of a provider's heartbeat may grow, while it is heard of.
    fn heartbeat_refresh(&self) -> Duration {
        let silent_after = Duration::from_secs(self.settings.load().control.provider_silent_seconds);
        if self.sessions.store.is_shared() { Duration::ZERO } else { silent_after * 3 / 4 }
    }

    /// When a session's provider was last heard of, as far as this process knows.
    pub(crate) fn provider_seen_at(&self, session: &Session) -> Timestamp {
        session.provider_seen_at.max(self.heartbeats.heard_at(session.id).unwrap_or_default())
    }

    /// Records an event of something that is decided and committed; where that fails, store and log have said so.
    pub(crate) async fn note(&self, event: SecurityEvent) {
        let _ = self.trail.record(vec![event]).await;
    }

    async fn try_register(&self, body: NewSession, presented: Presented) -> Result<(Registered, bool), Problem> {
        let provider: ProviderId = body
            .provider_id
            .parse()
            .map_err(|_| invalid("providerId: must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -"))?;
        let provider_key = self.provider_key(&provider, presented.key.as_ref())?;
        let id = match &body.session_id {
            Some(text) => text.parse().map_err(|_| invalid("sessionId: must be a UUID in lower case with hyphens"))?,
            None => random::session_id()?,
        };
        if body.base_path.as_ref().is_some_and(|path| *path != base_path(id)) {
            return Err(invalid("basePath: must be /s/<sessionId>/"));
        }
        let hardware = description("hardware", body.hardware)?;
        let pricing = description("pricing", body.pricing)?;
        let upstream = self.upstream(&body.public_url)?;
        let offer = self.offer(id, upstream, &body.token, hardware, pricing)?;

        let before = self.sessions.store.session(id).await?;
        let secret = match &before {
            Some(_) => presented.secret.ok_or(Problem::SessionTaken)?,
            None => random::secret()?,
        };
        let cap_bytes = self.settings.load().quota.cap_bytes;
        let registration =
            Registration { id, provider, provider_secret: secret.hash(), provider_key, offer, cap_bytes };
        let session = self.sessions.register(registration).await?;
        // Revoked in the meantime: whoever revoked it may have looked for its sessions before this one was there.
        if provider_key.is_some_and(|key| !self.keys.stands(key)) {
            self.deregister(id).await?;
            return Err(Problem::ProviderKeyRequired);
        }
        self.reports.is_back(id);
        let token = match session.status() {
            SessionStatus::Ready => self.issue_token(id).await?.map(|(token, _)| token),
            _ => None,
        };
        let is_new = before.is_none_or(|before| before.status() == SessionStatus::Removed);
        Ok((Registered { session, token, secret }, is_new))
    }

    /// The key that lets its bearer register in this name; none where none is needed.
    fn provider_key(&self, provider: &ProviderId, presented: Option<&Secret>) -> Result<Option<KeyId>, Problem> {
        match (presented, self.settings.load().control.registration) {
            (None, runit_config::Registration::Open) => Ok(None),
            (None, runit_config::Registration::Key) => Err(Problem::ProviderKeyRequired),
            // A key that opens nothing is refused in either case: who has one believes that it counts.
            (Some(key), _) => self.keys.provider(key, provider).map(Some).ok_or(Problem::ProviderKeyRequired),
        }
    }

    fn upstream(&self, text: &str) -> Result<UpstreamUrl, Problem> {
        UpstreamUrl::parse(text, &self.upstream_policy()).map_err(|_| Problem::InvalidPublicUrl)
    }

    fn offer(
        &self,
        id: SessionId,
        upstream: UpstreamUrl,
        credential: &str,
        hardware: Option<String>,
        pricing: Option<String>,
    ) -> Result<Offer, Problem> {
        let is_sendable = credential.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_sendable || !(1..=CREDENTIAL_CHARS).contains(&credential.len()) {
            return Err(invalid("token: must be 1 to 4096 visible ASCII characters"));
        }
        let sealed_credential = self.sessions.seal(id, &Secret::new(credential))?;
        let credential_hash = SecretHash::of(credential);
        Ok(Offer { upstream, sealed_credential, credential_hash, hardware, pricing })
    }
}

/// Read as a tree only when it is known to be short, since a hostile one takes many times the memory of its text. What is
/// kept is the tree's own text: in one line, as server-sent events need it, and no deeper than every reader can follow.
fn description(field: &str, sent: Option<Box<RawValue>>) -> Result<Option<String>, Problem> {
    let Some(sent) = sent else { return Ok(None) };
    if sent.get().len() > DESCRIPTION_BYTES {
        return Err(invalid(&format!("{field}: must be at most {DESCRIPTION_BYTES} bytes of JSON")));
    }
    let tree: Value = serde_json::from_str(sent.get()).map_err(|error| invalid(&format!("{field}: {error}")))?;
    Ok(Some(tree.to_string()))
}

fn invalid(detail: &str) -> Problem {
    Problem::InvalidPayload(detail.to_owned())
}

/// Which event a refused registration is.
const fn refused_registration(problem: &Problem) -> Option<EventKind> {
    match problem {
        Problem::InvalidPublicUrl => Some(EventKind::SuspiciousProviderUrl),
        Problem::InvalidPayload(_) | Problem::SessionTaken | Problem::ProviderKeyRequired => {
            Some(EventKind::InvalidProviderRegistration)
        }
        _ => None,
    }
}
