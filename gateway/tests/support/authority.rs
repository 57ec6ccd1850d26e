//! An authority in memory: core's rules, a clock that tests set, and faults on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use runit_core::authority::{ClaimError, LeaseError, ReconnectError, Unavailable};
use runit_core::ledger::{Lease, LeasePolicy, LeaseReport, LeaseRequest, Ledger, Spent, Standing};
use runit_core::session::{Change, Claim, Offer, Reconnection, Refusal};
use runit_core::{
    AccessToken, Authority, Clock, DirectoryChange, EventKind, LockMode, NodeId, ProviderId, Rejection, RenterAddress,
    Secret, SecretHash, SecurityEvent, Session, SessionId, SessionView, Timestamp, UpstreamPolicy, UpstreamUrl,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::eventually;

/// The time that a test says it is.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl Default for TestClock {
    fn default() -> Self {
        Self(AtomicU64::new(1_795_334_400_000))
    }
}

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(runit_core::time::millis(by), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, (Session, Ledger, Secret)>,
    watchers: Vec<Watcher>,
    events: Vec<SecurityEvent>,
    counted: Vec<EventKind>,
    present: Vec<SessionId>,
}

/// A node that follows the directory.
struct Watcher {
    sender: mpsc::UnboundedSender<DirectoryChange>,
    sent: u64,
    applied: Arc<AtomicU64>,
}

impl Watcher {
    /// Whether it still listens.
    fn tell(&mut self, change: DirectoryChange) -> bool {
        self.sent += 1;
        self.sender.send(change).is_ok()
    }
}

impl State {
    fn publish(&mut self, view: &SessionView) {
        self.watchers.retain_mut(|watcher| watcher.tell(DirectoryChange::Upsert(view.clone())));
    }
}

pub struct TestAuthority {
    pub clock: Arc<TestClock>,
    policy: LeasePolicy,
    state: Mutex<State>,
    /// While set, every call fails.
    pub down: AtomicBool,
    /// While set, locks have moved too often.
    pub tired: AtomicBool,
    /// While set, no call is answered.
    pub hangs: AtomicBool,
    claims: AtomicU64,
}

impl TestAuthority {
    pub fn new(clock: Arc<TestClock>) -> Self {
        let policy = LeasePolicy { min_bytes: 256 * 1024, max_bytes: 16 << 20, ttl: Duration::from_secs(60) };
        Self {
            clock,
            policy,
            state: Mutex::default(),
            down: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            tired: AtomicBool::new(false),
            claims: AtomicU64::new(0),
        }
    }

    /// A READY session at a plain HTTP upstream, with one token.
    pub fn session(&self, upstream: std::net::SocketAddr, cap_bytes: u64) -> (SessionId, AccessToken) {
        self.session_at(&format!("http://{upstream}"), cap_bytes)
    }

    /// The same at any URL of this machine.
    pub fn session_at(&self, url: &str, cap_bytes: u64) -> (SessionId, AccessToken) {
        let id = SessionId::from_uuid(Uuid::new_v4());
        let local = ["127.0.0.1", "localhost"].map(str::to_owned);
        let hosts = vec!["gpu.example.org".to_owned()];
        let policy = UpstreamPolicy { hosts, plain_http_hosts: local.to_vec() };
        let credential = Secret::new("upstream-credential");
        let offer = Offer {
            upstream: UpstreamUrl::parse(url, &policy).expect("listed"),
            sealed_credential: Vec::new(),
            credential_hash: credential.hash(),
            hardware: None,
            pricing: None,
        };
        let provider: ProviderId = "provider".parse().expect("valid");
        let session =
            Session::register(id, provider, SecretHash::of("provider"), None, offer, cap_bytes, self.clock.now());
        self.state().sessions.insert(id, (session, Ledger::default(), credential));
        (id, self.issue(id))
    }

    /// One more token for a READY session.
    pub fn issue(&self, id: SessionId) -> AccessToken {
        let token = AccessToken::from_uuid(Uuid::new_v4());
        self.change(id, Change::IssueToken(token.hash())).expect("ready");
        token
    }

    /// Applies a change and publishes it.
    pub fn change(&self, id: SessionId, change: Change) -> Result<SessionView, Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let (session, _, credential) = state.sessions.get_mut(&id).expect("configured");
        session.apply(change, now)?;
        let view = view(session, credential);
        state.publish(&view);
        Ok(view)
    }

    /// The renter at 127.0.0.`n` gives the session back.
    pub fn release(&self, id: SessionId, token: &AccessToken, n: u8) {
        let address = RenterAddress::new([127, 0, 0, n].into());
        self.change(id, Change::Release { token: token.hash(), address, mode: LockMode::Exact }).expect("its holder");
    }

    /// The agent brings a fresh workspace behind a new tunnel.
    pub fn refresh(&self, id: SessionId, workspace: &str) {
        let offer = self.offer(id, workspace);
        self.change(id, Change::Refresh(offer)).expect("not removed");
    }

    /// The agent deregisters, and registers the same id again with a fresh workspace.
    pub fn leave_and_return(&self, id: SessionId, workspace: &str) {
        self.change(id, Change::Remove).expect("live");
        let offer = self.offer(id, workspace);
        let now = self.clock.now();
        let mut state = self.state();
        let (session, _, credential) = state.sessions.get_mut(&id).expect("configured");
        let provider = session.provider.clone();
        session.register_again(&provider, SecretHash::of("provider"), None, offer, now).expect("the same agent");
        let view = view(session, credential);
        state.publish(&view);
    }

    /// Waits until every node knows what has changed so far. Until then a node refuses what was valid a moment ago, and
    /// what will be in a moment.
    pub async fn heard(&self) {
        eventually("all nodes know", || {
            let behind = |watcher: &&Watcher| watcher.applied.load(Ordering::SeqCst) < watcher.sent;
            let behind = self.state().watchers.iter().filter(behind).count();
            if behind == 0 { Ok(()) } else { Err(behind) }
        })
        .await;
    }

    fn offer(&self, id: SessionId, workspace: &str) -> Offer {
        let offer = self.state().sessions[&id].0.offer.clone();
        Offer { credential_hash: SecretHash::of(workspace), ..offer }
    }

    pub fn ledger(&self, id: SessionId) -> Ledger {
        let mut ledger = self.state().sessions[&id].1.clone();
        ledger.advance(self.clock.now());
        ledger
    }

    pub fn standing_of(&self, id: SessionId) -> Standing {
        let cap = self.state().sessions[&id].0.cap_bytes;
        self.ledger(id).standing(cap)
    }

    /// Events that the data plane did not record.
    pub fn counted(&self) -> Vec<EventKind> {
        self.state().counted.clone()
    }

    pub fn events(&self) -> Vec<SecurityEvent> {
        self.state().events.clone()
    }

    /// How often it was asked about a token.
    pub fn claims(&self) -> u64 {
        self.claims.load(Ordering::SeqCst)
    }

    pub fn was_present(&self, id: SessionId) -> bool {
        self.state().present.contains(&id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    async fn up(&self) -> Result<(), Unavailable> {
        while self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.down.load(Ordering::SeqCst) { Err(Unavailable) } else { Ok(()) }
    }
}

fn view(session: &Session, credential: &Secret) -> SessionView {
    SessionView {
        id: session.id,
        revision: session.revision,
        status: session.status(),
        ending: session.ending(),
        lock: session.lock().cloned().map(Box::new),
        upstream: session.offer.upstream.clone(),
        credential: credential.clone(),
        cap_bytes: session.cap_bytes,
    }
}

#[async_trait]
impl Authority for TestAuthority {
    fn watch(&self) -> BoxStream<'static, DirectoryChange> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut state = self.state();
        let views = state.sessions.values().map(|(session, _, credential)| view(session, credential)).collect();
        let applied = Arc::new(AtomicU64::new(0));
        let mut watcher = Watcher { sender, sent: 0, applied: Arc::clone(&applied) };
        watcher.tell(DirectoryChange::Snapshot(views));
        state.watchers.push(watcher);
        let mut taken = 0;
        let changes = futures::stream::poll_fn(move |cx| {
            // Whoever asks for the next one has applied those before it.
            applied.store(taken, Ordering::SeqCst);
            receiver.poll_recv(cx).map(|change| {
                taken += 1;
                change
            })
        });
        changes.boxed()
    }

    async fn claim(&self, claim: Claim) -> Result<SessionView, ClaimError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        self.up().await?;
        let opens = |session: &Session| match &session.state {
            runit_core::SessionState::Ready { tokens } => tokens.contains(&claim.token),
            runit_core::SessionState::Locked(lock) => lock.token == claim.token,
            _ => false,
        };
        let id = self.state().sessions.values().find(|(session, ..)| opens(session)).map(|(session, ..)| session.id);
        let id = id.ok_or(Rejection::InvalidToken)?;
        match self.change(id, Change::Claim(claim, LockMode::Exact)) {
            Ok(view) => Ok(view),
            Err(Refusal::Rejected(rejection)) => Err(rejection.into()),
            Err(_) => Err(Rejection::InvalidToken.into()),
        }
    }

    async fn reconnect(&self, reconnection: Reconnection) -> Result<SessionView, ReconnectError> {
        self.up().await?;
        if self.tired.load(Ordering::SeqCst) {
            return Err(ReconnectError::TooOften(Duration::from_millis(1_500)));
        }
        let locked_by = |session: &Session| session.lock().is_some_and(|lock| lock.token == reconnection.token);
        let id =
            self.state().sessions.values().find(|(session, ..)| locked_by(session)).map(|(session, ..)| session.id);
        match self.change(id.ok_or(Rejection::InvalidToken)?, Change::Reconnect(reconnection)) {
            Ok(view) => Ok(view),
            Err(Refusal::Rejected(rejection)) => Err(rejection.into()),
            Err(_) => Err(Rejection::InvalidToken.into()),
        }
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Lease, LeaseError> {
        self.up().await?;
        let (now, policy) = (self.clock.now(), self.policy);
        let mut state = self.state();
        let (session, ledger, _) = state.sessions.get_mut(&request.session).ok_or(LeaseError::UnknownSession)?;
        let cap_bytes = session.cap_of(request.lock).ok_or(LeaseError::NoLock)?;
        ledger.grant(&request, cap_bytes, &policy, now).map_err(LeaseError::Short)
    }

    async fn settle(&self, reports: Vec<LeaseReport>) -> Result<(), Unavailable> {
        self.up().await?;
        let now = self.clock.now();
        let mut state = self.state();
        for report in reports {
            if let Some((_, ledger, _)) = state.sessions.get_mut(&report.session) {
                ledger.report(&report, now);
            }
        }
        Ok(())
    }

    async fn recover(&self, node: NodeId, spent: Vec<(SessionId, Spent)>) -> Result<(), Unavailable> {
        self.up().await?;
        let now = self.clock.now();
        let mut state = self.state();
        for (session, spent) in spent {
            if let Some((_, ledger, _)) = state.sessions.get_mut(&session) {
                ledger.recover(node, &spent, now);
            }
        }
        Ok(())
    }

    async fn standing(&self, session: SessionId) -> Result<Option<Standing>, Unavailable> {
        self.up().await?;
        Ok(Some(self.standing_of(session)))
    }

    async fn standings(&self, sessions: Vec<SessionId>) -> Result<Vec<(SessionId, Standing)>, Unavailable> {
        self.up().await?;
        Ok(sessions.into_iter().map(|session| (session, self.standing_of(session))).collect())
    }

    async fn present(&self, sessions: Vec<SessionId>) -> Result<(), Unavailable> {
        self.up().await?;
        self.state().present.extend(sessions);
        Ok(())
    }

    async fn record(&self, events: Vec<SecurityEvent>) -> Result<(), Unavailable> {
        self.up().await?;
        self.state().events.extend(events);
        Ok(())
    }

    fn count(&self, kind: EventKind) {
        self.state().counted.push(kind);
    }
}
