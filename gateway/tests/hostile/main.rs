//! The real gateway between hostile renters and hostile providers, on bare sockets at both ends.
//!
//! Nothing here is an HTTP library's: what such a library cannot send, or would forgive, is the point. After every row of
//! a table the other renter is asked after: his connection stands, his answers are his own; the gateway has closed what
//! it opened; its log has grown by a few short lines without a secret.
#![allow(unreachable_pub, reason = "modules of a test, not of a library")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod house;
mod recorder;
mod requests;
mod servers;
mod wire;

use std::collections::BTreeMap;

use house::{COOKIE, House, QUERY, Session};
use recorder::Seen;
use requests::{Outcome, Row, TABLES};
use servers::{Server, Told};

/// Runs `check` for each row, and tells of all that fail at the end.
async fn attack(house: &mut House, row: &Row) -> Result<(), String> {
    let bytes = filled(&house.attacker, &house.other, row.bytes, "");
    let received = house.exchange(bytes.as_bytes(), expected_answers(row)).await;
    let seen = house.recorder.take_seen();
    let statuses: Vec<u16> = received.answers.iter().map(wire::Message::status).collect();
    let told = || {
        let seen: Vec<String> = seen.iter().map(Seen::to_string).collect();
        format!("{}: answers {statuses:?}, rest {}, seen {seen:?}", row.what, received.rest.escape_ascii())
    };
    let whole = seen.iter().filter(|seen| matches!(seen, Seen::Request(_))).count();
    if !received.in_time
        || !received.rest.is_empty()
        || whole > received.answers.len()
        || seen.iter().any(|seen| matches!(seen, Seen::Garbage(..)))
    {
        return Err(told());
    }
    let fits = match row.outcome {
        Outcome::Refused(allowed) => {
            let status = statuses.first().copied().unwrap_or(0);
            statuses.len() <= 1 && allowed.contains(&status) && seen.is_empty()
        }
        Outcome::RefusedByPage(status, says) => {
            let is_page = |answer: &wire::Message| {
                let kind = answer.all("content-type").concat();
                kind.starts_with("text/html") && String::from_utf8_lossy(&answer.body).contains(says)
            };
            statuses == [status] && received.answers.iter().all(is_page) && seen.is_empty()
        }
        Outcome::Passes(requests) => {
            statuses.iter().all(|status| *status == 200)
                && statuses.len() == requests.len()
                && seen.len() == requests.len()
                && seen.iter().zip(requests).all(|(seen, expected)| is_request(house, seen, expected))
        }
        Outcome::First(method, path, framing, body) => {
            matches!(statuses[..], [200 | 400])
                && whole <= 1
                && seen.iter().all(|seen| match seen {
                    Seen::Request(_) => is_request(house, seen, &(method, path, framing, body)),
                    _ => true,
                })
        }
        Outcome::Breaks | Outcome::Ends => whole == 0 && statuses.iter().all(|status| *status == 400),
    };
    if fits { Ok(()) } else { Err(told()) }
}

fn is_request(house: &House, seen: &Seen, expected: &(&str, &str, wire::Framing, &str)) -> bool {
    let Seen::Request(request) = seen else { return false };
    let (method, target) = request.method_and_target();
    let path = format!("/s/{}/{}", house.attacker.id, expected.1);
    let path_fits = target.split('?').next() == Some(&path);
    (method, request.framing, &request.body[..]) == (expected.0, expected.2, expected.3.as_bytes()) && path_fits
}

/// A row's bytes with its placeholders filled; `mark` goes into the paths.
fn filled(attacker: &Session, other: &Session, bytes: &str, mark: &str) -> String {
    let token = attacker.token.expose().to_string();
    let (name, value) = &attacker.cookie;
    let credentials = format!("Authorization: token {token}\r\nCookie: mine={COOKIE}; {name}={value}\r\n");
    let mut bytes = bytes.to_owned();
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let start = format!("{method} {{S}}/x?{QUERY}=1&token={{TOKEN}} HTTP/1.1\r\nHost: g\r\n{{AUTH}}");
        bytes = bytes.replace(&format!("{{{method}}}"), &start);
    }
    bytes
        .replace("{MORE}", "GET {S}/smuggled HTTP/1.1\r\nHost: g\r\n{AUTH}\r\n")
        .replace("{LONG}", requests::LONG)
        .replace("{COOKIES}", &(0..40).map(|n| format!("Cookie: c{n}={}\r\n", "v".repeat(1_000))).collect::<String>())
        .replace("{TE}", "Transfer-Encoding: chunked\r\n\r\n")
        .replace("{WS}", support::WEBSOCKET)
        .replace("{B}", &format!("/s/{}", attacker.id))
        .replace("{S}", &format!("/s/{}{mark}", attacker.id))
        .replace("{O}", &format!("/s/{}{mark}", other.id))
        .replace("{AUTH}", &credentials)
        .replace("{TOKEN}", &token)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_servers_read_differently_are_refused_or_read_once() {
    let mut house = House::start().await;
    let mut failures = Vec::new();
    for row in TABLES.iter().copied().flatten() {
        if let Err(failure) = attack(&mut house, row).await {
            failures.push(failure);
        }
        house.check_after(1).await;
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
    let recorded = String::from_utf8_lossy(&house.recorder.bytes()).into_owned();
    house.expect_no_secret("what the provider was sent", &recorded, false);
    let metrics = house.metrics_text().await;
    house.expect_no_secret("the metrics", &metrics, true);
}

/// A request in the corpus that a server refuses by itself, where the recorder takes it.
const PARTICULAR: [(&str, &str); 3] =
    [("nginx", "a method in lower case"), ("node", "a method in lower case"), ("node", "a method of 8 KB")];

/// What each server read, by the row that it came from, without the path to the session.
fn by_row(server: &Server, session: &Session) -> BTreeMap<usize, Vec<Told>> {
    let mut rows: BTreeMap<usize, Vec<Told>> = BTreeMap::new();
    for mut told in server.told() {
        let path = format!("/s/{}/row", session.id);
        let rest = told.target.strip_prefix(&path).unwrap_or_else(|| panic!("{} read {told:?}", server.name));
        let (row, rest) = rest.split_once('/').expect("a row and a path");
        let (row, rest) = (row.parse().expect("a number"), rest.to_owned());
        told.target = rest;
        rows.entry(row).or_default().push(told);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_reads_the_same_requests() {
    let house = House::start().await;
    let servers =
        [Server::recorder().await, Server::tornado(), Server::nginx().await, Server::node(), Server::hyper().await];
    let rows: Vec<&Row> = TABLES.iter().copied().flatten().collect();
    let mut read = Vec::new();
    for server in &servers {
        let session = house::rent(&house.installation, server.address).await;
        for (number, row) in rows.iter().enumerate() {
            let bytes = filled(&session, &house.other, row.bytes, &format!("/row{number}"));
            house.exchange(bytes.as_bytes(), expected_answers(row)).await;
        }
        // What a server tells, it tells before it answers; the last one is for those that were not waited for.
        let last = house.request(&session, "GET", &format!("row{}/last", rows.len()), "");
        house.exchange(last.as_bytes(), 1).await;
        support::eventually("the last request is told", || {
            let told = by_row(server, &session);
            if told.contains_key(&rows.len()) { Ok(()) } else { Err(told.len()) }
        })
        .await;
        read.push(by_row(server, &session));
    }
    let mut differences = Vec::new();
    for (server, read_by) in servers.iter().zip(&read) {
        for (number, row) in rows.iter().enumerate() {
            let (mine, recorded) = (of_row(read_by, number), of_row(&read[0], number));
            let refuses = PARTICULAR.contains(&(server.name, row.what));
            let fits = match row.outcome {
                Outcome::Passes(_) if refuses => mine.is_empty(),
                Outcome::Passes(requests) => recorded.len() == requests.len() && same(&mine, &recorded),
                Outcome::First(..) => mine.len() <= 1 && mine.iter().all(|told| is_first(told, row)),
                Outcome::Refused(_) | Outcome::RefusedByPage(..) | Outcome::Breaks | Outcome::Ends => mine.is_empty(),
            };
            if !fits {
                differences.push(format!("{}, {}: {mine:?} and not {recorded:?}", server.name, row.what));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn of_row(read: &BTreeMap<usize, Vec<Told>>, number: usize) -> Vec<Told> {
    read.get(&number).cloned().unwrap_or_default()
}

fn same(mine: &[Told], recorded: &[Told]) -> bool {
    let framed = |told: &Told| Told {
        framing: told.framing.filter(|_| mine.iter().all(|m| m.framing.is_some())),
        ..told.clone()
    };
    mine.iter().cloned().eq(recorded.iter().map(framed))
}

fn is_first(told: &Told, row: &Row) -> bool {
    let Outcome::First(method, path, _, body) = row.outcome else { return false };
    told.method == method && told.target.split('?').next() == Some(path) && told.body == body.as_bytes()
}

fn expected_answers(row: &Row) -> usize {
    match row.outcome {
        Outcome::Passes(requests) => requests.len(),
        Outcome::Refused(_) | Outcome::RefusedByPage(..) | Outcome::First(..) | Outcome::Breaks => 1,
        Outcome::Ends => 0,
    }
}

/// The one request that the provider heard.
async fn heard(house: &House, fields: &str) -> wire::Message {
    let request = house.request(&house.attacker, "GET", "x", fields);
    let received = house.exchange(request.as_bytes(), 1).await;
    let seen = house.recorder.take_seen();
    let statuses: Vec<u16> = received.answers.iter().map(wire::Message::status).collect();
    match (&statuses[..], &seen[..]) {
        ([200], [Seen::Request(request)]) => request.clone(),
        _ => panic!("{fields:?}: {received:?}, {seen:?}"),
    }
}

/// What the gateway says itself is there, once, and right.
fn expect_ours(house: &House, request: &wire::Message, fields: &str) {
    let address = house.recorder.address.to_string();
    let authorization = format!("token {}", house::CREDENTIAL);
    for (name, value) in [("host", &*address), ("authorization", &*authorization), ("via", "1.1 runit")] {
        assert_eq!(request.all(name), [value], "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provider_hears_nothing_of_what_a_renter_claims() {
    let mut house = House::start().await;
    for name in requests::CLAIMS {
        for name in [(*name).to_owned(), name.replace('-', "_"), name.to_uppercase()] {
            let fields = format!("{name}: evil.example\r\n{name}: evil.example\r\n");
            let request = heard(&house, &fields).await;
            expect_ours(&house, &request, &fields);
            assert!(!format!("{request:?}").contains("evil"), "{name}: {request:?}");
            house.check_after(1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_takes_nothing_away_that_the_gateway_sets() {
    let mut house = House::start().await;
    let origin = format!("http://{}", house.recorder.address);
    for name in requests::OURS {
        for options in
            [(*name).to_owned(), name.to_lowercase(), format!("close, {name}, X-Other"), format!(" ,{name},")]
        {
            let ours = "Origin: http://g\r\n";
            for handshake in [
                "",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ] {
                let upgrade = if handshake.is_empty() { "" } else { "Connection: Upgrade\r\n" };
                let fields = format!("{ours}{upgrade}{handshake}Connection: {options}\r\n");
                let request = heard(&house, &fields).await;
                expect_ours(&house, &request, &fields);
                // Whoever has his own Origin dropped is a program to the provider; never another page's.
                assert!(request.all("origin").iter().all(|value| *value == origin), "{fields:?}");
                assert_eq!(request.all("connection"), if upgrade.is_empty() { vec![] } else { vec!["Upgrade"] });
                house.check_after(1).await;
            }
        }
    }
}

/// The provider's answer to one request, as it comes out.
async fn provoke(house: &mut House, row: &answers::Row, fields: &str) -> Result<(), String> {
    house.recorder.follow(row.script.clone());
    let request = house.request(&house.attacker, row.method, "scripted", fields);
    let received = house.exchange(request.as_bytes(), 1).await;
    let heard = house.recorder.take_seen().len();
    let told = |why: &str| {
        let rest = received.rest.escape_ascii().to_string();
        format!("{}: {why}: {:?}, interim {:?}, rest {rest:.300}", row.what, received.answers, received.interim)
    };
    if !received.in_time {
        return Err(told("no end in time"));
    }
    // A safe request is asked again where a connection that was kept open ends without an answer (RFC 9110, 9.2.2).
    let asked_again = heard == 2 && row.method == "GET" && matches!(row.script.last(), Some(recorder::Step::Close));
    if heard != 1 && !asked_again {
        return Err(told(&format!("{heard} requests at the provider")));
    }
    let evil = |message: &wire::Message| format!("{message:?}").contains("evil");
    if received.answers.iter().any(evil) || !received.interim.is_empty() {
        return Err(told("something that should not pass"));
    }
    let fits = match (row.outcome, &received.answers[..]) {
        (answers::Fails(status), [answer]) => answer.status() == status && !answer.all("cache-control").is_empty(),
        (answers::Passes(status, body), [answer]) => (answer.status(), &answer.body[..]) == (status, body.as_bytes()),
        (answers::CutShort, []) => received.rest.starts_with(b"HTTP/1.1 "),
        _ => false,
    };
    let whole = received.rest.is_empty() || matches!(row.outcome, answers::CutShort);
    if fits && whole { Ok(()) } else { Err(told("not as it should be")) }
}

/// The attacked session itself goes on: nothing that the provider said too much is the answer to another request.
async fn expect_own_answer(house: &House, what: &str) {
    let request = house.request(&house.attacker, "GET", "after", "Connection: close\r\n");
    let received = house.exchange(request.as_bytes(), 1).await;
    let expected = recorder::body_for(&format!("/s/{}/", house.attacker.id));
    let bodies: Vec<&[u8]> = received.answers.iter().map(|answer| &answer.body[..]).collect();
    assert_eq!(bodies, [expected.as_bytes()], "after {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_break_the_protocol_end_at_the_gateway() {
    let mut house = House::start().await;
    let mut failures = Vec::new();
    for row in answers::table() {
        if let Err(failure) = provoke(&mut house, &row, "").await {
            failures.push(failure);
        }
        expect_own_answer(&house, row.what).await;
        house.check_after(2).await;
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_answered_badly_open_no_tunnel() {
    let mut house = House::start().await;
    let mut failures = Vec::new();
    for row in answers::handshakes() {
        if let Err(failure) = provoke(&mut house, &row, support::WEBSOCKET).await {
            failures.push(failure);
        }
        expect_own_answer(&house, row.what).await;
        house.check_after(2).await;
    }
    assert!(failures.is_empty(), "{} rows:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_provider_may_not_set_do_not_arrive() {
    let mut house = House::start().await;
    let mut failures = Vec::new();
    for line in answers::STRIPPED {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{line}\r\n\r\nok");
        let row = answers::Row {
            what: line,
            method: "GET",
            script: vec![recorder::Step::Send(answer.into_bytes())],
            outcome: answers::Passes(200, "ok"),
        };
        if let Err(failure) = provoke(&mut house, &row, "").await {
            failures.push(failure);
        }
        house.check_after(1).await;
    }
    assert!(failures.is_empty(), "{} lines:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_of_a_provider_stay_within_its_session() {
    let mut house = House::start().await;
    let mut failures = Vec::new();
    for (sent, expected) in answers::COOKIES {
        let filled = |text: &str| {
            text.replace("{B}", &format!("/s/{}", house.attacker.id))
                .replace("{O}", &format!("/s/{}", house.other.id))
                .replace("{OURS}", &house.attacker.cookie.0)
                .replace("{OTHERS}", &house.other.cookie.0)
        };
        let (sent, expected) = (filled(sent), expected.iter().map(|cookie| filled(cookie)).collect::<Vec<_>>());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: {sent}\r\n\r\nok");
        house.recorder.follow(vec![recorder::Step::Send(answer.into_bytes())]);
        let request = house.request(&house.attacker, "GET", "scripted", "");
        let received = house.exchange(request.as_bytes(), 1).await;
        house.recorder.take_seen();
        let set: Vec<&str> = received.answers.iter().flat_map(|answer| answer.all("set-cookie")).collect();
        if received.answers.len() != 1 || set != expected {
            failures.push(format!("{sent}: {received:?}, and not {expected:?}"));
        }
        house.check_after(1).await;
    }
    assert!(failures.is_empty(), "{} cookies:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_control_is_asked_its_log_stays_short_and_without_secrets() {
    let mut house = House::start().await;
    let token = house.attacker.token.expose().to_string();
    let credential = house::CREDENTIAL;
    let long = "x".repeat(8_000);
    let requests = [
        format!("GET /renter/usage/{token}?a={QUERY} HTTP/1.1\r\nHost: c\r\nCookie: mine={COOKIE}\r\n"),
        format!("GET /renter/usage/{token}/{QUERY} HTTP/1.1\r\nHost: c\r\n"),
        format!("GET /access/{token}?{QUERY} HTTP/1.1\r\nHost: c\r\nReferer: http://c/?token={token}\r\n"),
        format!("GET /{long}?{QUERY} HTTP/1.1\r\nHost: c\r\nX-Long: {long}\r\n"),
        format!("GET /\u{1b}[31m{token} HTTP/1.1\r\nHost: c\r\n"),
        format!("POST /renter/heartbeat/x HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer {token}{long}\r\n"),
        format!("POST /renter/release/{token}%0a{QUERY} HTTP/1.1\r\nHost: c\r\nContent-Length: 0\r\n"),
        format!("nonsense {token} {QUERY}\r\n"),
    ];
    let body = format!("{{\"providerId\":\"{long}\",\"publicUrl\":\"https://{QUERY}.evil\",\"token\":\"{credential}\"");
    let posted = format!(
        "POST /provider/session HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let bodies = requests.iter().map(|_| "").chain([&*body]);
    let mut answered = 0;
    for (request, body) in requests.iter().chain([&posted]).zip(bodies) {
        let bytes = format!("{request}Connection: close\r\n\r\n{body}");
        answered += usize::from(house.ask_control(bytes.as_bytes()).await.starts_with(b"HTTP/1.1 "));
        house.check_after(1).await;
    }
    assert!(answered >= 6, "only {answered} were answered");
}
