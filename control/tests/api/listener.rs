//! The listener: TLS, and who is believed about whose request it is.

use std::os::unix::fs::PermissionsExt;

use reqwest::Method;
use runit_config::Tls;
use tempfile::TempDir;

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
