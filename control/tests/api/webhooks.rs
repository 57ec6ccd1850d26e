//! Receivers that take, fail, hang, redirect or answer slowly: nothing is lost, nothing is sent twice under another id, and
//! none holds up another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runit_config::{Secret, WebhookTarget};
use runit_core::Timestamp;
use runit_core::event::{EventKind, SecurityEvent};
use runit_core::webhook::{Message, WebhookSecret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::app::TestApp;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Answers the `n`th request (from 0) with a head, after that time; none: never.
type Behaviour = fn(usize) -> Option<(Duration, String)>;

/// A receiver, and each request that came: id and body.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

fn answer(status: &str) -> Option<(Duration, String)> {
    Some((Duration::ZERO, format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")))
}

impl Receiver {
    async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, behaviour, Arc::clone(&noted)));
            }
        });
        Self { address, seen }
    }

    fn target(&self, name: &str) -> WebhookTarget {
        let url = format!("http://{}/hook", self.address);
        WebhookTarget {
            name: name.into(),
            url,
            secret: Secret::new(SECRET),
            kinds: vec!["NEW_PROVIDER_REGISTERED".into()],
        }
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }

    /// What came, each id once, in order of its first attempt.
    fn bodies(&self) -> Vec<String> {
        let mut bodies_by_id = HashMap::new();
        let mut bodies = Vec::new();
        for (id, body) in self.seen() {
            if let Some(known) = bodies_by_id.insert(id, body.clone()) {
                assert_eq!(known, body, "one id, one message");
            } else {
                bodies.push(body);
            }
        }
        bodies
    }
}

async fn serve(mut stream: TcpStream, behaviour: Behaviour, seen: Arc<Mutex<Vec<(String, String)>>>) {
    let mut text = String::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && field(head, "content-length") == body.len().to_string()
        {
            break (head.to_owned(), body.to_owned());
        }
    };
    let (id, time) = (field(&head, "webhook-id"), field(&head, "webhook-timestamp"));
    let message = Message { id: id.clone(), body: body.clone() };
    let signature = WebhookSecret::parse(SECRET).unwrap().sign(&message, time.parse().unwrap());
    assert_eq!(field(&head, "webhook-signature"), signature);
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((id, body));
        seen.len() - 1
    };
    match behaviour(number) {
        Some((after, head)) => {
            tokio::time::sleep(after).await;
            let _ = stream.write_all(head.as_bytes()).await;
        }
        None => std::future::pending().await,
    }
}

fn field(head: &str, name: &str) -> String {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.to_owned())
        .next()
        .unwrap_or_default()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_receiver_gets_every_event_once_by_id_whatever_the_others_do() {
    let good = Receiver::start(|_| answer("204 No Content")).await;
    let failing = Receiver::start(|n| answer(if n % 3 == 2 { "200 OK" } else { "500 Internal Server Error" })).await;
    let hanging = Receiver::start(|n| if n % 2 == 0 { None } else { answer("200 OK") }).await;
    let slow = Receiver::start(|_| answer("200 OK").map(|(_, head)| (Duration::from_millis(40), head))).await;
    let redirecting = Receiver::start(|_| answer("307 Temporary Redirect\r\nLocation: /elsewhere")).await;
    let receivers =
        [("good", &good), ("failing", &failing), ("hanging", &hanging), ("slow", &slow), ("away", &redirecting)];
    let app = TestApp::with(|settings| {
        settings.webhooks.plain_http_hosts = vec!["127.0.0.1".into()];
        settings.webhooks.targets = receivers.map(|(name, receiver)| receiver.target(name)).to_vec();
        // What is taken in this time is not sent again, on however busy a machine.
        settings.webhooks.timeout_ms = 2_000;
        settings.webhooks.first_retry_ms = 10;
    })
    .await;
    // A target begins with what happens after it was first seen.
    for (name, _) in receivers {
        while app.webhook_cursor(name).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for _ in 0..4 {
        app.register().await;
    }
    for (name, receiver) in &receivers[..4] {
        eventually(name, || receiver.bodies().len() == 4).await;
    }
    let expected = good.bodies();
    assert_eq!(good.seen().len(), 4, "what is taken is not sent again");
    assert!(expected.iter().all(|body| body.contains("NEW_PROVIDER_REGISTERED")), "{expected:?}");
    for (name, receiver) in &receivers[1..4] {
        assert_eq!(receiver.bodies(), expected, "{name}: the same, in the same order");
    }
    eventually("the redirecting one is tried again", || redirecting.seen().len() >= 3).await;
    assert_eq!(redirecting.bodies(), expected[..1], "the first is not taken, so no other is sent");
    let ids: Vec<_> = good.seen().into_iter().map(|(id, _)| id).collect();
    assert!(failing.seen().iter().all(|(id, _)| !ids.contains(id)), "another receiver, another id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_taken_before_a_restart_comes_after_it_under_its_id() {
    let receiver = Receiver::start(|n| answer(if n < 2 { "503 Service Unavailable" } else { "200 OK" })).await;
    let mut app = TestApp::with(|settings| {
        settings.webhooks.plain_http_hosts = vec!["127.0.0.1".into()];
        settings.webhooks.targets = vec![receiver.target("ops")];
        settings.webhooks.first_retry_ms = 60_000;
    })
    .await;
    while app.webhook_cursor("ops").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.register().await;
    app.register().await;
    eventually("the first attempt", || receiver.seen().len() == 1).await;
    for attempts in 2..=3 {
        app.restart().await;
        eventually("an attempt of the next process", || receiver.seen().len() >= attempts).await;
    }
    eventually("the second event", || receiver.bodies().len() == 2).await;
    let seen = receiver.seen();
    assert!(seen[..3].iter().all(|one| *one == seen[0]), "{seen:?}");
    assert_eq!(seen.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_none_of_a_receivers_is_passed_over_once_and_hides_nothing() {
    let receiver = Receiver::start(|_| answer("200 OK")).await;
    let app = TestApp::with(|settings| {
        settings.webhooks.plain_http_hosts = vec!["127.0.0.1".into()];
        settings.webhooks.targets = vec![receiver.target("ops")];
    })
    .await;
    let cursor = async |reached: u64| {
        while app.webhook_cursor("ops").await.is_none_or(|cursor| cursor < reached) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    cursor(0).await;
    let removed = SecurityEvent::new(EventKind::SessionRemoved, Timestamp::default());
    app.authority().record(vec![removed; 1_500]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), cursor(1_500)).await.expect("the cursor moves on");
    assert!(receiver.seen().is_empty());
    app.register().await;
    eventually("the next event of its kind", || receiver.bodies().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_removed_before_it_was_taken_is_counted() {
    let receiver = Receiver::start(|n| if n == 0 { None } else { answer("200 OK") }).await;
    let mut app = TestApp::with(|settings| {
        settings.webhooks.plain_http_hosts = vec!["127.0.0.1".into()];
        settings.webhooks.targets = vec![receiver.target("ops")];
        settings.webhooks.timeout_ms = 60_000;
        settings.audit.keep_events = 2;
    })
    .await;
    while app.webhook_cursor("ops").await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        app.register().await;
    }
    eventually("the first event is on its way", || receiver.seen().len() == 1).await;
    app.restart_with(|settings| settings.webhooks.targets.clear()).await;
    while app.events(&["NEW_PROVIDER_REGISTERED"]).await.len() > 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.restart_with(|settings| settings.webhooks.targets = vec![receiver.target("ops")]).await;
    eventually("what was kept is sent", || receiver.bodies().len() == 3).await;
    assert!(receiver.bodies()[1].contains("\"place\":9"), "{:?}", receiver.bodies());
    assert_eq!(app.counted("runit_webhook_missed_events_total", "ops"), 8.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_inside_is_never_dialled() {
    let inside = Receiver::start(|_| answer("200 OK")).await;
    let mut target = inside.target("inside");
    target.url = format!("https://localhost:{}/", inside.address.port());
    let settings = runit_config::NodeSettings {
        webhooks: runit_config::Webhooks { targets: vec![target], ..Default::default() },
        // Whoever may be rented out is not for that reason told of events.
        upstream: runit_config::Upstream { plain_http_hosts: vec!["localhost".into()], ..Default::default() },
        ..Default::default()
    };
    let targets = runit_control::webhooks::Target::all(&settings).unwrap();
    let refused = targets[0].test(&runit_control::SystemClock::start()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the host has no address that may be dialled");
    assert!(inside.seen().is_empty());
}

#[tokio::test]
async fn the_command_tries_each_receiver_once_and_says_what_came_of_it() {
    let takes = Receiver::start(|_| answer("204 No Content")).await;
    let refuses = Receiver::start(|_| answer("500 Internal Server Error")).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("runit.toml");
    let target = |name: &str, receiver: &Receiver| {
        format!(
            "{{ name = \"{name}\", url = \"http://{}/hook\", secret = \"{SECRET}\", kinds = [] }}",
            receiver.address
        )
    };
    let targets = [target("takes", &takes), target("refuses", &refuses)].join(", ");
    let settings = format!("[webhooks]\nplain_http_hosts = [\"127.0.0.1\"]\ntargets = [{targets}]\n");
    std::fs::write(&config, settings).unwrap();
    let test = async |name: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_runit-control"));
        let output = command.args(["webhooks", "test"]).args(name).arg("--config").arg(&config).output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.contains(SECRET));
        (output.status.code(), said)
    };
    assert_eq!(test(&["takes"]).await, (Some(0), "takes: taken\n".into()));
    assert_eq!(test(&[]).await, (Some(1), "takes: taken\nrefuses: the receiver answers 500\n".into()));
    assert_eq!(test(&["nobody"]).await.0, Some(2));
    let seen = [&takes, &refuses].map(|receiver| receiver.seen());
    assert_eq!((seen[0].len(), seen[1].len()), (2, 1));
    assert!(seen[1][0].1.contains("\"type\":\"TEST\""), "{seen:?}");
}
