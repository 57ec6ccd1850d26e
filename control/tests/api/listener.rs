//! The listener: TLS, who is believed about whose request it is, and who of too many is let in.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use reqwest::Method;
use runit_config::Tls;
use runit_control::Reception;
use runit_listener::places::Bounds;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::app::TestApp;

/// A pair for 127.0.0.1, in files, and a client's certificate store that trusts it.
fn pair() -> (TempDir, Tls, reqwest::Certificate) {
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let tls = Tls { certificate: directory.path().join("chain.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&tls.certificate, certificate.pem()).unwrap();
    std::fs::write(&tls.key, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&tls.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let trusted = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    (directory, tls, trusted)
}

#[tokio::test]
async fn over_tls_it_answers_with_hsts_and_plain_http_gets_nothing() {
    let (_directory, tls, trusted) = pair();
    let app = TestApp::with(|settings| {
        settings.control.tls = Some(tls);
        settings.control.public_url = "https://127.0.0.1:10000".parse().unwrap();
    })
    .await;
    let client = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy().build().unwrap();
    let answer = client.get(format!("https://{}/renter/sessions", app.address())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert!(client.get(format!("http://{}/renter/sessions", app.address())).send().await.is_err());
    let expiry = app.control.gather().into_iter().find(|family| family.name().ends_with("expiry_timestamp_seconds"));
    assert!(expiry.unwrap().get_metric()[0].get_gauge().get_value() > 1.7e9);
}

#[tokio::test]
async fn a_listed_proxy_is_believed_and_nobody_else() {
    let app = TestApp::limited(|settings| {
        settings.control.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        settings.control.general_limit.requests = 2;
    })
    .await;
    let ask = async |client: u8, forwarded_for: &str| {
        let headers = [("x-forwarded-for", forwarded_for.to_owned())];
        app.client(client).send(Method::GET, "/renter/sessions", &headers, None).await.status.as_u16()
    };
    for n in 1..=3 {
        let claimed = format!("198.51.100.{n}, 203.0.113.9");
        assert_eq!(ask(1, &claimed).await, if n < 3 { 200 } else { 429 }, "the one whom the proxy saw counts");
    }
    assert_eq!(ask(1, "203.0.113.10").await, 200);
    assert_eq!(ask(1, "unknown").await, 400);
    for n in 1..=3 {
        assert_eq!(ask(2, &format!("203.0.113.{}", 100 + n)).await, if n < 3 { 200 } else { 429 });
    }
}

/// For what happens within milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUEST: &[u8] = b"GET /renter/sessions HTTP/1.1\r\nHost: control\r\n\r\n";

fn reception() -> Reception {
    let bounds = Bounds { connections: 40, per_network: 10, waiting_per_network: 4 };
    Reception { bounds, first_head: Duration::from_secs(600), next_head: Duration::from_secs(600) }
}

async fn connect(app: &TestApp, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from(from), 0)).unwrap();
    socket.connect(app.address()).await.unwrap()
}

/// One request on a connection that stays open.
async fn ask(connection: &mut TcpStream) {
    connection.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"[]") {
        let read = tokio::time::timeout(PATIENCE, connection.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "closed: {}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// A request whose answer does not end.
async fn follow(connection: &mut TcpStream) {
    connection.write_all(b"GET /renter/sessions/events HTTP/1.1\r\nHost: control\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.starts_with(b"HTTP/1.1 200") {
        let read = tokio::time::timeout(PATIENCE, connection.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "closed: {}", String::from_utf8_lossy(&answer));
    }
}

/// Waits until the connection is closed without a word.
async fn is_closed(connection: &mut TcpStream) {
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut said)).await.expect("it is closed");
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn silent_connections_of_many_networks_keep_nobody_out() {
    let app = TestApp::receiving(reception(), |_| {}).await;
    let mut kept = connect(&app, [127, 0, 0, 2]).await;
    ask(&mut kept).await;
    let mut flood = Vec::new();
    for n in 0..100 {
        flood.push(connect(&app, [127, 0, 1, n % 25]).await);
        if n % 10 == 9 {
            app.client(3).get("/renter/sessions").await.expect(200);
        }
    }
    ask(&mut kept).await;
    for oldest in &mut flood[..50] {
        is_closed(oldest).await;
    }
    assert!(app.turned_away("gave_way") >= 50.0, "{}", app.turned_away("gave_way"));
    assert_eq!(app.turned_away("address_waiting"), 0.0);
    ask(flood.last_mut().unwrap()).await;
}

#[tokio::test]
async fn a_network_has_so_many_connections_fewer_of_them_silent_and_another_its_own() {
    let app = TestApp::receiving(reception(), |_| {}).await;
    let mut open = Vec::new();
    for n in 0..10 {
        let mut connection = connect(&app, [127, 0, 0, 2]).await;
        if n < 6 {
            ask(&mut connection).await;
        }
        open.push(connection);
    }
    is_closed(&mut connect(&app, [127, 0, 0, 2]).await).await;
    assert_eq!(app.turned_away("address_waiting"), 1.0);
    for connection in &mut open {
        follow(connection).await;
    }
    is_closed(&mut connect(&app, [127, 0, 0, 2]).await).await;
    assert_eq!(app.turned_away("address"), 1.0);
    ask(&mut connect(&app, [127, 0, 0, 3]).await).await;
}

#[tokio::test]
async fn places_that_are_all_in_use_are_not_taken_away() {
    let bounds = Bounds { connections: 3, per_network: 3, waiting_per_network: 3 };
    let app = TestApp::receiving(Reception { bounds, ..reception() }, |_| {}).await;
    let mut open = Vec::new();
    for n in 2..5 {
        open.push(connect(&app, [127, 0, 0, n]).await);
        follow(open.last_mut().unwrap()).await;
    }
    is_closed(&mut connect(&app, [127, 0, 0, 5]).await).await;
    assert_eq!(app.turned_away("all"), 1.0);
    for connection in &open {
        let mut told = [0; 4096];
        while connection.try_read(&mut told).is_ok_and(|read| {
            assert_ne!(read, 0, "closed");
            true
        }) {}
    }
}

#[tokio::test]
async fn many_more_agents_than_places_beat_and_no_more_than_half_of_the_places_wait() {
    let bounds = Bounds { connections: 8, per_network: 8, waiting_per_network: 8 };
    let app = TestApp::receiving(Reception { bounds, ..reception() }, |_| {}).await;
    let session = app.register().await;
    let beat = json!({ "sessionId": session.id, "knownStatus": "READY", "waitSeconds": 60 });
    let waiting: Vec<_> = (0..4)
        .map(|n| {
            let (client, secret, beat) = (app.client(10 + n), session.secret.clone(), beat.clone());
            tokio::spawn(async move { client.post_as("/provider/heartbeat", &secret, beat).await.expect(200) })
        })
        .collect();
    // Kept connections, of more agents than there are places; one whose place was taken is made anew.
    let agents: Vec<_> = (0..20).map(|n| app.client(100 + n)).collect();
    for _ in 0..3 {
        for agent in &agents {
            agent.post_as("/provider/heartbeat", &session.secret, json!({ "sessionId": session.id })).await.expect(200);
        }
    }
    assert!(app.turned_away("gave_way") >= 40.0, "{}", app.turned_away("gave_way"));
    app.client(99).post_as("/provider/heartbeat", &session.secret, beat).await.expect(200); // not after a minute
    app.claim(&session.token, 7, None).await.unwrap();
    for waited in waiting {
        assert_eq!(tokio::time::timeout(PATIENCE, waited).await.expect("heard").unwrap()["status"], "LOCKED");
    }
}

#[tokio::test]
async fn who_is_slow_with_the_first_request_is_closed_and_who_has_asked_is_not() {
    let app = TestApp::receiving(Reception { first_head: Duration::from_secs(1), ..reception() }, |_| {}).await;
    let mut kept = connect(&app, [127, 0, 0, 2]).await;
    ask(&mut kept).await;
    let mut silent = connect(&app, [127, 0, 0, 3]).await;
    let mut half = connect(&app, [127, 0, 0, 3]).await;
    half.write_all(&REQUEST[..20]).await.unwrap();
    is_closed(&mut silent).await;
    is_closed(&mut half).await;
    assert_eq!(app.turned_away("no_head"), 2.0);
    // Older than those two, and idle for as long.
    ask(&mut kept).await;
}

#[tokio::test]
async fn half_a_handshake_gives_way_too() {
    let (_directory, tls, trusted) = pair();
    let bounds = Bounds { connections: 2, ..reception().bounds };
    let app = TestApp::receiving(Reception { bounds, ..reception() }, |settings| {
        settings.control.tls = Some(tls);
        settings.control.public_url = "https://127.0.0.1:10000".parse().unwrap();
    })
    .await;
    let mut half = connect(&app, [127, 0, 0, 2]).await;
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let _silent = connect(&app, [127, 0, 0, 3]).await;
    let client = reqwest::Client::builder().tls_certs_only([trusted]).no_proxy().build().unwrap();
    let answer = client.get(format!("https://{}/renter/sessions", app.address())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    is_closed(&mut half).await;
    assert_eq!(app.turned_away("gave_way"), 1.0);
}

#[tokio::test]
async fn a_listed_proxy_has_the_connections_of_many() {
    let proxies = vec!["127.0.0.2/32".parse().unwrap()];
    let app = TestApp::receiving(reception(), |settings| settings.control.trusted_proxies = proxies).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(connect(&app, [127, 0, 0, 2]).await);
    }
    for connection in &mut open {
        connection.write_all(&REQUEST[..REQUEST.len() - 2]).await.unwrap();
        connection.write_all(b"X-Forwarded-For: 192.0.2.1\r\n\r\n").await.unwrap();
    }
    for connection in &mut open {
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
