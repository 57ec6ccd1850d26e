//! A control plane on a port of its own, with a clock that the test steps, and clients that come from where it says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, redirect};
use runit_config::{Limit, NodeSettings};
use runit_control::{Control, Reception};
use runit_core::time::{Clock, Timestamp};
use runit_core::{AccessToken, Authority, RenterAddress, SessionView};
use runit_core::{authority::ClaimError, session::Claim};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const UPSTREAM: &str = "https://calm-red-fox.trycloudflare.com";
const DEADLINE: Duration = Duration::from_secs(20);

/// Steps only when told to.
pub(crate) struct StepClock(AtomicU64);

impl Clock for StepClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::SeqCst))
    }
}

impl StepClock {
    pub(crate) fn step(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

pub(crate) struct TestApp {
    pub(crate) clock: Arc<StepClock>,
    pub(crate) control: Control,
    settings: NodeSettings,
    address: SocketAddr,
    admin_address: SocketAddr,
    running: Option<Running>,
    _data: Arc<TempDir>,
}

struct Running {
    stops: [oneshot::Sender<()>; 2],
    served: [JoinHandle<std::io::Result<()>>; 2],
}

/// The operator's key in the settings.
pub(crate) const OPERATOR_KEY: &str = "the operator's own key";

/// One client, at one address.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// What a provider gets for its registration.
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

impl TestApp {
    /// Default settings, but for limits, which nobody reaches here.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, with settings changed as said.
    pub(crate) async fn with(change: impl FnOnce(&mut NodeSettings)) -> Self {
        Self::limited(|settings| {
            let unlimited = Limit { requests: 1_000_000, seconds: 1 };
            settings.control.general_limit = unlimited;
            settings.control.creation_limit = unlimited;
            settings.control.heartbeat_limit = unlimited;
            change(settings);
        })
        .await
    }

    /// Default settings and default limits, changed as said.
    pub(crate) async fn limited(change: impl FnOnce(&mut NodeSettings)) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = NodeSettings::default();
        settings.control.data_dir = data.path().join("control");
        settings.control.sweep_interval_ms = 10;
        settings.gateway.public_url = "https://gateway.example".parse().unwrap();
        settings.gateway.operator_key = Some(runit_core::Secret::new(OPERATOR_KEY));
        change(&mut settings);
        let clock = Arc::new(StepClock(AtomicU64::new(1_795_334_400_000)));
        let control = Control::open(&settings, clock.clone()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin_address = address;
        let mut app = Self { clock, control, settings, address, admin_address, running: None, _data: data };
        app.serve().await;
        app
    }

    /// A second process over the same data.
    pub(crate) async fn beside(&self) -> Self {
        let control = Control::open(&self.settings, self.clock.clone()).unwrap();
        let (clock, settings, address) = (self.clock.clone(), self.settings.clone(), self.address);
        let (admin_address, _data) = (address, Arc::clone(&self._data));
        let mut app = Self { clock, control, settings, address, admin_address, running: None, _data };
        app.serve().await;
        app
    }

    /// The same again, in one process with a gateway of that document.
    pub(crate) async fn beside_gateway(mut self, document: &Value) -> Self {
        self.stop().await;
        self.control = Control::open(&self.settings, self.clock.clone()).unwrap().beside_gateway(document);
        self.serve().await;
        self
    }

    /// Settings changed as said, letting in other connections than this process's files would allow.
    pub(crate) async fn receiving(reception: Reception, change: impl FnOnce(&mut NodeSettings)) -> Self {
        let mut app = Self::with(change).await;
        app.stop().await;
        app.control = Control::open(&app.settings, app.clock.clone()).unwrap().receiving(reception);
        app.serve().await;
        app
    }

    /// Stops, and starts again over the same data, with whatever was said done in between.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut NodeSettings)) {
        self.stop().await;
        change(&mut self.settings);
        self.control = Control::open(&self.settings, self.clock.clone()).unwrap();
        self.serve().await;
    }

    pub(crate) async fn restart(&mut self) {
        self.restart_with(|_| {}).await;
    }

    pub(crate) async fn stop(&mut self) {
        let Running { stops, served } = self.running.take().expect("it runs");
        stops.into_iter().for_each(|stop| stop.send(()).unwrap());
        for served in served {
            served.await.unwrap().unwrap();
        }
    }

    async fn serve(&mut self) {
        let listener = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let admin = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
        self.admin_address = admin.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (stop_admin, admin_stopped) = oneshot::channel();
        let serving = self.control.serve(listener, async move { stopped.await.unwrap_or_default() });
        let admin_stopped = async move { admin_stopped.await.unwrap_or_default() };
        let admin = self.control.serve_admin(admin, Vec::new(), admin_stopped);
        let served = [tokio::spawn(serving), tokio::spawn(admin)];
        self.running = Some(Running { stops: [stop, stop_admin], served });
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        &self.settings.control.data_dir
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    pub(crate) fn authority(&self) -> Arc<dyn Authority> {
        self.control.authority()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn step(&self, time: Duration) {
        self.clock.step(time);
    }

    /// A client of the admin listener.
    pub(crate) fn operator(&self) -> Client {
        Client { base: format!("http://{}", self.admin_address), ..self.client(1) }
    }

    /// A client of the admin listener of another process over the same data, which does nothing else yet: it has not
    /// swept.
    pub(crate) async fn starting(&self) -> Client {
        let control = Control::open(&self.settings, self.clock.clone()).unwrap();
        let listener = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(control.serve_admin(listener, Vec::new(), std::future::pending()));
        Client { base, ..self.client(1) }
    }

    /// A client at 127.0.0.`last`.
    pub(crate) fn client(&self, last: u8) -> Client {
        let http = reqwest::Client::builder()
            .local_address(IpAddr::from([127, 0, 0, last]))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Client { http, base: format!("http://{}", self.address) }
    }

    pub(crate) async fn register(&self) -> Registered {
        let answer = self.client(1).post("/provider/session", offer()).await.expect(200);
        Registered {
            id: answer["sessionId"].as_str().unwrap().to_owned(),
            secret: answer["providerSecret"].as_str().unwrap().to_owned(),
            token: answer["accessToken"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// A token's first use at the gateway, which asks the authority.
    pub(crate) async fn claim(&self, token: &str, from: u8, cookie: Option<&str>) -> Result<SessionView, ClaimError> {
        let token = AccessToken::parse(token).expect("a token").hash();
        let address = RenterAddress::new(IpAddr::from([127, 0, 0, from]));
        self.authority()
            .claim(Claim { token, session: None, address, cookie: cookie.map(runit_core::SecretHash::of) })
            .await
    }

    /// The session's status as its provider sees it.
    pub(crate) async fn status(&self, session: &Registered) -> String {
        let path = format!("/provider/session/{}", session.id);
        let answer = self.client(1).get_as(&path, &session.secret).await;
        match answer.status.as_u16() {
            200 => answer.json()["status"].as_str().unwrap().to_owned(),
            _ => answer.json()["error"].as_str().unwrap().to_owned(),
        }
    }

    /// Waits until the session's status is the one expected.
    pub(crate) async fn until(&self, session: &Registered, expected: &str) {
        let started = Instant::now();
        loop {
            let status = self.status(session).await;
            if status == expected {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "{expected} expected, {status} seen last");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connections to the API that were closed before their first request or between two, by one limit.
    pub(crate) fn turned_away(&self, limit: &str) -> f64 {
        self.counted("runit_control_turned_away_total", limit)
    }

    /// A counter with one label, of that value.
    pub(crate) fn counted(&self, name: &str, label: &str) -> f64 {
        let families = self.control.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let counted = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == label);
        counted.unwrap_or_else(|| panic!("no {label}")).get_counter().get_value()
    }

    /// Waits until the sweeper has looked at the time as it is now: it writes heartbeats first, which the test can see.
    pub(crate) async fn swept(&self) {
        let sweeps = || async {
            let families = self.control.gather();
            let store = families.iter().find(|family| family.name() == "runit_store_seconds").expect("measured");
            let due =
                |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == "due");
            store.get_metric().iter().find(due).map_or(0, |metric| metric.get_histogram().get_sample_count())
        };
        let (before, started) = (sweeps().await, Instant::now());
        while sweeps().await < before + 2 {
            assert!(started.elapsed() < DEADLINE, "the sweeper stands still");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// How far a webhook's receiver is.
    pub(crate) async fn webhook_cursor(&self, target: &str) -> Option<u64> {
        let key = runit_core::trail::TrailKey::new([0; 32]); // nothing of the trail is written
        let store = runit_control::sqlite::SqliteStore::open(&self.data_dir().join("runit.db"), key).unwrap();
        runit_core::Store::webhook_cursor(&store, target.into()).await.unwrap()
    }

    /// The kinds of the events so far that are one of these, in order.
    pub(crate) async fn events(&self, kinds: &[&str]) -> Vec<String> {
        self.events_with_addresses(kinds).await.into_iter().map(|(kind, _)| kind).collect()
    }

    /// The same, with the address of each.
    pub(crate) async fn events_with_addresses(&self, kinds: &[&str]) -> Vec<(String, Option<RenterAddress>)> {
        let key = runit_core::trail::TrailKey::new([0; 32]); // nothing is written
        let store = runit_control::sqlite::SqliteStore::open(&self.data_dir().join("runit.db"), key).unwrap();
        let events = runit_core::Store::events(&store, 1_000).await.unwrap();
        let listed = events.iter().filter(|event| kinds.contains(&event.kind.as_str()));
        listed.map(|event| (event.kind.as_str().to_owned(), event.address)).collect()
    }
}

pub(crate) fn offer() -> Value {
    json!({
        "providerId": "gpu-box",
        "publicUrl": UPSTREAM,
        "token": "jupyter-secret",
        "hardware": { "gpu": "A100" },
        "pricing": { "perHour": 2 },
    })
}

/// `offer()` with some fields replaced; null removes one.
pub(crate) fn offer_with(fields: Value) -> Value {
    let mut offer = offer();
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(offer.as_object_mut().unwrap().remove(name)),
            _ => offer[name] = value.clone(),
        }
    }
    offer
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub(crate) async fn get_as(&self, path: &str, credential: &str) -> Answer {
        self.send(Method::GET, path, &[bearer(credential)], None).await
    }

    pub(crate) async fn delete_as(&self, path: &str, credential: &str) -> Answer {
        self.send(Method::DELETE, path, &[bearer(credential)], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[json_type()], Some(body.to_string())).await
    }

    pub(crate) async fn post_as(&self, path: &str, credential: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[json_type(), bearer(credential)], Some(body.to_string())).await
    }

    pub(crate) async fn put_as(&self, path: &str, credential: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, &[json_type(), bearer(credential)], Some(body.to_string())).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<String>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    /// With the operator's key, and a body of `{}` where one can be sent.
    pub(crate) async fn open_as(&self, method: Method, path: &str) -> reqwest::Response {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(OPERATOR_KEY);
        request.header("content-type", "application/json").body("{}").send().await.unwrap()
    }

    pub(crate) async fn stream(
        &self,
        path: &str,
        headers: &[(&str, String)],
    ) -> impl futures::Stream<Item = reqwest::Result<Vec<u8>>> + Unpin + use<> {
        let mut request = self.http.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.unwrap();
        Box::pin(futures::stream::unfold(response, |mut response| async move {
            let chunk = response.chunk().await.transpose()?;
            Some((chunk.map(|chunk| chunk.to_vec()), response))
        }))
    }

    pub(crate) async fn open(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap()
    }
}

pub(crate) fn json_type() -> (&'static str, String) {
    ("content-type", "application/json".into())
}

pub(crate) fn bearer(credential: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {credential}"))
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// An answer with this status, whatever its body is.
    #[track_caller]
    pub(crate) fn expect_status(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
    }

    /// An answer with this status, text and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, error: &str, code: &str) {
        let body = self.expect(status);
        assert_eq!((body["error"].as_str(), body["code"].as_str()), (Some(error), Some(code)), "{}", self.text);
    }

    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }
}
