//! The operator's interface: who may ask, what is shown, and what is changed.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};

use super::app::{Answer, Client, OPERATOR_KEY, TestApp, UPSTREAM, bearer, offer_with};

async fn get(app: &TestApp, path: &str) -> Value {
    app.operator().get_as(path, OPERATOR_KEY).await.expect(200)
}

async fn post(client: &Client, path: &str, key: &str) -> Answer {
    client.send(reqwest::Method::POST, path, &[bearer(key)], None).await
}

/// A key that the configured operator makes, with its id.
async fn make_key(app: &TestApp, role: &str) -> (String, String) {
    let body = json!({ "name": "night shift", "role": role });
    let made = app.operator().post_as("/admin/v1/keys", OPERATOR_KEY, body).await.expect(201);
    (made["key"].as_str().unwrap().to_owned(), made["keyId"].as_str().unwrap().to_owned())
}

fn ids(page: &Value) -> Vec<&str> {
    page["sessions"].as_array().unwrap().iter().map(|session| session["sessionId"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn nothing_is_shown_or_changed_without_a_key_that_may() {
    let app = TestApp::start().await;
    let session = app.register().await;
    let (reader, _) = make_key(&app, "read").await;
    let operator = app.operator();
    let required = ("operator key required", "operator_key_required");
    for path in ["/admin/v1/sessions", "/admin/v1/events", "/admin/v1/keys", "/admin/v1/events/live", "/metrics"] {
        operator.get(path).await.expect_problem(401, required.0, required.1);
        operator.get_as(path, "a guess").await.expect_problem(401, required.0, required.1);
        operator.get_as(path, &session.secret).await.expect_problem(401, required.0, required.1);
    }
    get(&app, "/admin/v1/sessions").await;
    operator.get_as("/admin/v1/sessions", &reader).await.expect(200);
    operator.get_as("/metrics", &reader).await.expect_status(200);

    app.claim(&session.token, 2, None).await.unwrap();
    let path = format!("/admin/v1/sessions/{}", session.id);
    for action in ["release", "cut"] {
        let answer = post(&operator, &format!("{path}/{action}"), &reader).await;
        answer.expect_problem(403, "this key may only read", "role_required");
    }
    operator.delete_as(&path, &reader).await.expect_problem(403, "this key may only read", "role_required");
    let more = json!({ "name": "me", "role": "operate" });
    operator.post_as("/admin/v1/keys", &reader, more).await.expect_problem(
        403,
        "this key may only read",
        "role_required",
    );
    assert_eq!(app.status(&session).await, "LOCKED");
    assert!(!app.events(&["OPERATOR_DENIED"]).await.is_empty());
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_also_after_a_restart() {
    let mut app = TestApp::start().await;
    let (key, id) = make_key(&app, "operate").await;
    let operator = app.operator();
    operator.get_as("/admin/v1/sessions", &key).await.expect(200);
    let revoked = operator.delete_as(&format!("/admin/v1/keys/{id}"), OPERATOR_KEY).await.expect(200);
    assert!(revoked["revokedAt"].is_string());
    operator.get_as("/admin/v1/sessions", &key).await.expect_status(401);
    app.restart().await;
    app.operator().get_as("/admin/v1/sessions", &key).await.expect_status(401);
    let keys = get(&app, "/admin/v1/keys").await;
    assert_eq!(keys["keys"][0]["keyId"], id.as_str());
    assert!(!keys.to_string().contains(&key), "a key is shown once");
    let path = "/admin/v1/keys/00000000-0000-4000-8000-000000000009";
    app.operator().delete_as(path, OPERATOR_KEY).await.expect_problem(404, "unknown key", "unknown_key");
}

#[tokio::test]
async fn a_key_that_another_process_revoked_opens_nothing_here() {
    let app = TestApp::start().await;
    let other = app.beside().await;
    let (key, id) = make_key(&app, "read").await;
    other.swept().await;
    other.operator().get_as("/admin/v1/sessions", &key).await.expect(200);
    app.operator().delete_as(&format!("/admin/v1/keys/{id}"), OPERATOR_KEY).await.expect(200);
    other.swept().await;
    other.operator().get_as("/admin/v1/sessions", &key).await.expect_status(401);
}

#[tokio::test]
async fn who_guesses_keys_is_stopped_for_a_while() {
    let app = TestApp::start().await;
    let (made, _) = make_key(&app, "read").await;
    for _ in 0..20 {
        app.operator().get_as("/admin/v1/sessions", "a guess").await.expect_status(401);
    }
    let refused = app.operator().get_as("/admin/v1/sessions", OPERATOR_KEY).await;
    refused.expect_problem(429, "too many wrong keys", "too_many_guesses");
    assert_eq!(refused.header("retry-after"), "60");
    // Nobody guesses what was made here, so whoever presents it waits for nobody's guesses.
    app.operator().get_as("/admin/v1/sessions", &made).await.expect(200);
    app.step(Duration::from_secs(60));
    get(&app, "/admin/v1/sessions").await;
    for _ in 0..50 {
        get(&app, "/admin/v1/sessions").await; // what opens is no guess
    }
}

#[tokio::test]
async fn sessions_are_listed_by_what_is_asked_in_pages() {
    let app = TestApp::start().await;
    let mut sessions = Vec::new();
    for provider in ["b", "a", "c"] {
        let offer = offer_with(json!({ "providerId": provider }));
        sessions.push(app.client(1).post("/provider/session", offer).await.expect(200));
        app.step(Duration::from_secs(1));
    }
    let id = |n: usize| sessions[n]["sessionId"].as_str().unwrap();
    app.claim(sessions[1]["accessToken"].as_str().unwrap(), 7, None).await.unwrap();

    assert_eq!(ids(&get(&app, "/admin/v1/sessions").await), [id(0), id(1), id(2)]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?sort=provider").await), [id(1), id(0), id(2)]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?sort=provider&descending=true").await), [id(2), id(0), id(1)]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?status=LOCKED").await), [id(1)]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?provider=c").await), [id(2)]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?address=127.0.0.7").await), [id(1)]);
    let page = get(&app, "/admin/v1/sessions?offset=1&limit=1").await;
    assert_eq!((ids(&page), page["total"].as_u64()), (vec![id(1)], Some(3)));
    for wrong in
        ["limit=0", "limit=501", "status=ready", "sort=up", "provider=with%20space", "adress=127.0.0.1", "offset=-1"]
    {
        let answer = app.operator().get_as(&format!("/admin/v1/sessions?{wrong}"), OPERATOR_KEY).await;
        answer.expect_problem(400, "invalid query", "invalid_query");
    }
}

#[tokio::test]
async fn a_session_is_shown_with_lock_usage_and_events_and_without_secrets() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 7, None).await.unwrap();
    app.step(Duration::from_secs(5));
    let answer = app.operator().get_as(&format!("/admin/v1/sessions/{}", session.id), OPERATOR_KEY).await;
    let shown = answer.expect(200);
    assert_eq!(shown["status"], "LOCKED");
    assert_eq!(shown["publicUrl"], UPSTREAM);
    assert_eq!((&shown["lock"]["address"], &shown["lock"]["seconds"]), (&json!("127.0.0.7"), &json!(5)));
    assert_eq!(shown["usage"]["cap"], 10_737_418_240_u64);
    let kinds: Vec<&str> = shown["events"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["SESSION_LOCKED", "NEW_PROVIDER_REGISTERED"], "the newest first");
    for secret in [&*session.token, &session.secret, "jupyter-secret"] {
        assert!(!answer.text.contains(secret));
    }
    app.client(1).delete_as(&format!("/provider/session/{}", session.id), &session.secret).await.expect_status(204);
    let shown = get(&app, &format!("/admin/v1/sessions/{}", session.id)).await;
    assert_eq!(shown["status"], "REMOVED", "a tombstone too");
    for unknown in ["/admin/v1/sessions/00000000-0000-4000-8000-000000000009", "/admin/v1/sessions/%ff"] {
        app.operator().get_as(unknown, OPERATOR_KEY).await.expect_status(404);
    }
}

#[tokio::test]
async fn what_an_operator_does_is_done_and_names_the_key() {
    let app = TestApp::start().await;
    let (key, key_id) = make_key(&app, "operate").await;
    for (action, kind) in [("release", "SESSION_RELEASED"), ("cut", "SESSION_CUT")] {
        let session = app.register().await;
        let path = format!("/admin/v1/sessions/{}/{action}", session.id);
        post(&app.operator(), &path, &key).await.expect_problem(409, "nobody holds this session", "not_locked");
        app.claim(&session.token, 2, None).await.unwrap();
        let done = post(&app.operator(), &path, &key).await.expect(200);
        assert_eq!(done["status"], "RECYCLING");
        let events = get(&app, &format!("/admin/v1/events?kind={kind}&session={}", session.id)).await;
        assert_eq!(events["events"][0]["operator"], key_id.as_str());
    }
    let session = app.register().await;
    let path = format!("/admin/v1/sessions/{}", session.id);
    app.operator().delete_as(&path, OPERATOR_KEY).await.expect_status(204);
    app.operator().delete_as(&path, OPERATOR_KEY).await.expect_problem(404, "unknown session", "unknown_session");
    let events = get(&app, &format!("/admin/v1/events?kind=SESSION_REMOVED&session={}", session.id)).await;
    assert_eq!(events["events"][0]["operator"], "configured");
    let events = get(&app, "/admin/v1/events?kind=OPERATOR_KEY_CREATED").await;
    assert_eq!(events["events"][0]["keyId"], key_id.as_str());
    assert!(!events.to_string().contains(&key), "the key itself is in no event");
}

#[tokio::test]
async fn the_trail_is_read_in_pages_and_followed_live() {
    let app = TestApp::start().await;
    for _ in 0..5 {
        app.register().await;
    }
    let newest = get(&app, "/admin/v1/events?limit=2").await;
    let places = |page: &Value| -> Vec<u64> {
        page["events"].as_array().unwrap().iter().map(|event| event["place"].as_u64().unwrap()).collect()
    };
    assert_eq!((places(&newest), newest["next"].as_u64()), (vec![5, 4], Some(4)));
    assert_eq!(places(&get(&app, "/admin/v1/events?limit=2&before=4").await), [3, 2]);
    let last = get(&app, "/admin/v1/events?before=2").await;
    assert_eq!((places(&last), last["next"].is_null()), (vec![1], true));
    assert_eq!(places(&get(&app, "/admin/v1/events?after=3").await), [4, 5]);
    for wrong in ["kind=NOTHING", "since=yesterday", "session=x", "before=3&after=1"] {
        app.operator().get_as(&format!("/admin/v1/events?{wrong}"), OPERATOR_KEY).await.expect_status(400);
    }

    let headers = [bearer(OPERATOR_KEY), ("last-event-id", "4".to_owned())];
    let mut stream = app.operator().stream("/admin/v1/events/live", &headers).await;
    let mut text = String::new();
    let mut until = async |wanted: &str| {
        while !text.contains(wanted) {
            let chunk = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
            text.push_str(std::str::from_utf8(&chunk.expect(wanted).expect("open").unwrap()).unwrap());
        }
    };
    until("id: 5\n").await;
    app.register().await;
    until("id: 6\n").await;
    assert!(!text.contains("id: 4\n"), "{text}");
}

#[tokio::test]
async fn whatever_names_a_session_names_its_provider() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 2, None).await.unwrap();
    assert!(app.claim(&session.token, 3, None).await.is_err());
    app.client(2).post(&format!("/renter/release/{}", session.token), json!({})).await.expect(200);
    let foreign = offer_with(json!({ "publicUrl": "https://example.com" }));
    app.client(1).post("/provider/session", foreign).await.expect_status(400);
    let events = get(&app, "/admin/v1/events?provider=gpu-box&after=0").await;
    let kinds: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "NEW_PROVIDER_REGISTERED",
            "SESSION_LOCKED",
            "SESSION_HIJACK_ATTEMPT",
            "SESSION_RELEASED",
            "SUSPICIOUS_PROVIDER_URL"
        ]
    );
}

#[tokio::test]
async fn a_revoked_key_hears_nothing_more() {
    let app = TestApp::start().await;
    let (key, id) = make_key(&app, "read").await;
    let mut stream = app.operator().stream("/admin/v1/events/live", &[bearer(&key)]).await;
    app.operator().delete_as(&format!("/admin/v1/keys/{id}"), OPERATOR_KEY).await.expect(200);
    let rest = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), rest).await.expect("it ends");
}

#[tokio::test]
async fn the_summary_counts_a_day_also_what_was_before_a_restart() {
    let mut app = TestApp::start().await;
    let session = app.register().await;
    assert!(app.claim("00000000-0000-4000-8000-000000000001", 2, None).await.is_err());
    app.claim(&session.token, 2, None).await.unwrap();
    assert!(app.claim(&session.token, 3, None).await.is_err());
    app.swept().await;
    let expected = |summary: &Value| {
        assert_eq!(summary["sessions"], json!({ "ready": 0, "locked": 1, "recycling": 0 }));
        let events = &summary["events"];
        assert_eq!((&events["INVALID_ACCESS_ATTEMPT"], &events["SESSION_HIJACK_ATTEMPT"]), (&json!(1), &json!(1)));
    };
    let summary = get(&app, "/admin/v1/summary").await;
    expected(&summary);
    let series = summary["series"].as_array().unwrap();
    assert_eq!(series.last().unwrap()["mostLocked"], 1);
    assert_eq!(series.iter().map(|step| step["hijackAttempts"].as_u64().unwrap()).sum::<u64>(), 1);
    app.restart().await;
    expected(&get(&app, "/admin/v1/summary").await);
    app.step(Duration::from_secs(25 * 3600));
    assert_eq!(get(&app, "/admin/v1/summary").await["events"]["INVALID_ACCESS_ATTEMPT"], 0);
}

#[tokio::test]
async fn providers_and_usage_are_listed() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.swept().await;
    let providers = get(&app, "/admin/v1/providers").await;
    assert_eq!(providers["providers"][0]["providerId"], "gpu-box");
    assert_eq!(
        (&providers["providers"][0]["health"], &providers["providers"][0]["sessions"]["ready"]),
        (&json!("up"), &json!(1))
    );
    assert_eq!(get(&app, "/admin/v1/usage").await["sessions"], json!([]));

    app.claim(&session.token, 2, None).await.unwrap();
    let lease = runit_core::ledger::LeaseRequest {
        lease: runit_core::LeaseId::from_uuid(uuid::Uuid::from_u128(1)),
        node: runit_core::NodeId::from_uuid(uuid::Uuid::from_u128(2)),
        session: session.id.parse().unwrap(),
        lock: runit_core::LockId::of(runit_core::SecretHash::of(&session.token)),
        want: 1,
    };
    let granted = app.authority().lease(lease).await.unwrap().granted;
    let report = runit_core::ledger::LeaseReport {
        lease: runit_core::LeaseId::from_uuid(uuid::Uuid::from_u128(1)),
        session: session.id.parse().unwrap(),
        sequence: 1,
        bytes_in: 100,
        bytes_out: 0,
        closing: false,
    };
    app.authority().settle(vec![report]).await.unwrap();
    let other = app.register().await;
    let by_usage = get(&app, "/admin/v1/sessions?sort=usage&descending=true").await;
    assert_eq!(ids(&by_usage), [&*session.id, &*other.id]);
    assert_eq!(ids(&get(&app, "/admin/v1/sessions?sort=usage").await), [&*other.id, &*session.id]);

    let usage = get(&app, "/admin/v1/usage").await;
    assert_eq!((usage["total"].as_u64(), usage["reserved"].as_u64()), (Some(1), Some(granted - 100)));
    assert_eq!(usage["sessions"][0]["usage"]["reserved"].as_u64(), Some(granted - 100));
}

#[tokio::test]
async fn what_containers_use_is_told_for_each_and_in_sum() {
    let app = TestApp::start().await;
    let limits = json!({ "millicores": 2_000, "memoryBytes": 4_096, "processes": 100 });
    let told = json!({ "millicores": 250, "memoryBytes": 1_024, "processes": 15, "limits": limits });
    // The agents of the others look for the first time, or are not ours.
    let young = json!({ "memoryBytes": 1, "processes": 1, "limits": limits });
    let mut sessions = Vec::new();
    for report in [told.clone(), young, json!({ "memoryBytes": "much" }), json!([1])] {
        let session = app.register().await;
        let beat = json!({ "sessionId": session.id, "report": report });
        app.client(1).post_as("/provider/heartbeat", &session.secret, beat).await.expect(200);
        sessions.push(session);
    }
    let shown =
        async |n: usize| get(&app, &format!("/admin/v1/sessions/{}", sessions[n].id)).await["resources"].clone();
    assert_eq!(shown(0).await, told);
    assert_eq!((shown(2).await, shown(3).await), (Value::Null, Value::Null));
    let sum = json!({ "reporting": 2, "millicores": 250, "memoryBytes": 1_025, "processes": 16,
        "limits": { "millicores": 4_000, "memoryBytes": 8_192, "processes": 200 } });
    assert_eq!(get(&app, "/admin/v1/summary").await["containers"], sum);

    let path = format!("/provider/session/{}", sessions[0].id);
    app.client(1).delete_as(&path, &sessions[0].secret).await.expect_status(204);
    assert_eq!(get(&app, "/admin/v1/summary").await["containers"]["reporting"], 1, "of live sessions");
}

#[tokio::test]
async fn it_is_ready_while_the_store_takes_writes() {
    let app = TestApp::start().await;
    app.swept().await;
    app.operator().get("/livez").await.expect_status(200);
    app.operator().get("/readyz").await.expect_status(200);
    let db = rusqlite::Connection::open(app.data_dir().join("runit.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    app.operator().get("/readyz").await.expect_problem(503, "not ready", "not_ready");
    app.operator().get("/livez").await.expect_status(200);
    db.execute_batch("ROLLBACK").unwrap();
    app.operator().get("/readyz").await.expect_status(200);
}

#[tokio::test]
async fn it_is_not_ready_before_it_has_heard_from_the_store() {
    let app = TestApp::start().await;
    app.swept().await;
    let starting = app.starting().await;
    starting.get("/livez").await.expect_status(200);
    starting.get("/readyz").await.expect_problem(503, "not ready", "not_ready");
    app.operator().get("/readyz").await.expect_status(200);
}

#[tokio::test]
async fn metrics_are_open_where_no_key_is_configured_and_nothing_else_is() {
    let app = TestApp::with(|settings| settings.gateway.operator_key = None).await;
    let metrics = app.operator().get("/metrics").await;
    metrics.expect_status(200);
    assert!(metrics.text.contains("runit_sessions"));
    app.operator().get("/admin/v1/sessions").await.expect_status(401);
    app.operator().get_as("/admin/v1/sessions", "").await.expect_status(401);
}
