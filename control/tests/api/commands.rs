//! The operator's commands: the real program asks a real admin listener.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::AbortHandle;

use super::app::{OPERATOR_KEY, TestApp, offer_with};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000009";

/// What a command said, and its exit code.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(url: &str, key: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runit-control"));
    command.env("RUNIT_ADMIN_URL", url).args(arguments).kill_on_drop(true);
    match key {
        Some(key) => command.env("RUNIT_OPERATOR_KEY", key),
        None => command.env_remove("RUNIT_OPERATOR_KEY"),
    };
    command
}

async fn ran(mut command: Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn url(app: &TestApp) -> String {
    format!("http://{}", app.admin_address())
}

async fn run_as(app: &TestApp, key: &str, arguments: &[&str]) -> Ran {
    ran(command(&url(app), Some(key), arguments)).await
}

async fn run(app: &TestApp, arguments: &[&str]) -> Ran {
    run_as(app, OPERATOR_KEY, arguments).await
}

impl Ran {
    /// The output of a command that has to end with this code, without the operator's key in it.
    #[track_caller]
    fn expect(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(code == 0, self.err.is_empty(), "what went wrong is said, and nothing else: {self:?}");
        assert!(!self.out.contains(OPERATOR_KEY) && !self.err.contains(OPERATOR_KEY), "{self:?}");
        &self.out
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.expect(0)).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The lines of a table as words.
    #[track_caller]
    fn table(&self) -> Vec<Vec<&str>> {
        self.expect(0).lines().map(|line| line.split_whitespace().collect()).collect()
    }
}

#[tokio::test]
async fn sessions_are_listed_shown_released_cut_and_removed() {
    let app = TestApp::start().await;
    let (one, other) = (app.register().await, app.register().await);
    app.claim(&one.token, 7, None).await.unwrap();
    app.step(Duration::from_secs(45));

    let listed = run(&app, &["sessions", "--sort", "status"]).await;
    let table = listed.table();
    assert_eq!(table[0], ["SESSION", "STATUS", "PROVIDER", "RENTER", "LOCKED", "USED", "CAP", "AGE"]);
    let locked = [&*one.id, "LOCKED", "gpu-box", "127.0.0.7", "45", "s", "0", "B", "10.0", "GiB", "45", "s"];
    assert_eq!(table[1], locked);
    assert_eq!((table[2][0], table[2][1], table[2][3], table.len()), (&*other.id, "READY", "-", 3));

    let of_one = ["sessions", "--status", "locked", "--provider", "gpu-box", "--address", "127.0.0.7", "--json"];
    let page = run(&app, &of_one).await.json();
    assert_eq!((&page["total"], &page["sessions"][0]["sessionId"]), (&json!(1), &json!(one.id)));
    let newest = run(&app, &["sessions", "--descending", "--limit", "1", "--offset", "1"]).await;
    assert!(newest.expect(0).ends_with("1 of 2\n"), "{newest:?}");
    run(&app, &["sessions", "--limit", "501"]).await.expect(2);

    let shown = run(&app, &["session", &one.id]).await;
    assert!(shown.expect(0).contains("locked from     127.0.0.7\n"), "{shown:?}");
    assert!(shown.out.contains("SESSION_LOCKED"), "{shown:?}");
    assert_eq!(run(&app, &["session", &one.id, "--json"]).await.json()["lock"]["address"], "127.0.0.7");

    assert_eq!(run(&app, &["release", &one.id]).await.expect(0), format!("{} is RECYCLING\n", one.id));
    let again = run(&app, &["release", &one.id]).await;
    again.expect(5);
    assert_eq!(again.err, "runit-control: nobody holds this session\n");
    app.claim(&other.token, 7, None).await.unwrap();
    assert_eq!(run(&app, &["cut", &other.id, "--json"]).await.json()["status"], "RECYCLING");
    assert_eq!(run(&app, &["remove", &other.id]).await.expect(0), "removed\n");
    assert_eq!(app.status(&other).await, "unknown session");

    for action in ["session", "release", "cut", "remove"] {
        run(&app, &[action, UNKNOWN]).await.expect(3);
        run(&app, &[action, "nonsense"]).await.expect(2);
    }
}

#[tokio::test]
async fn events_providers_usage_and_the_summary_are_shown() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 7, None).await.unwrap();
    app.swept().await;

    let events = run(&app, &["events"]).await;
    let table = events.table();
    assert_eq!((table[0][0], table[1][2], table[2][2]), ("PLACE", "SESSION_LOCKED", "NEW_PROVIDER_REGISTERED"));
    assert_eq!((table[1][3], table[1][5]), (&*session.id, "127.0.0.7"));
    let some = ["events", "--kind", "SESSION_LOCKED,SESSION_CUT", "--session", &session.id, "--json"];
    assert_eq!(run(&app, &some).await.json()["events"].as_array().unwrap().len(), 1);
    let none = ["events", "--since", "2026-11-23T00:00:00Z", "--json"];
    assert_eq!(run(&app, &none).await.json()["events"], json!([]));
    run(&app, &["events", "--kind", "NO_SUCH_KIND"]).await.expect(2);
    run(&app, &["events", "--watch", "verify"]).await.expect(2);

    let providers = run(&app, &["providers"]).await;
    assert_eq!(providers.table()[1][..4], ["gpu-box", "up", "0", "1"]);
    let usage = run(&app, &["usage"]).await;
    assert_eq!(usage.table().last().unwrap()[..4], ["in", "all:", "0", "B"]);
    assert_eq!(run(&app, &["usage", "--provider", "gpu-box", "--json"]).await.json()["total"], 0);
    let summary = run(&app, &["summary"]).await;
    assert!(summary.expect(0).starts_with("sessions: 0 ready, 1 locked, 0 recycling\n"), "{summary:?}");
}

#[tokio::test]
async fn keys_are_made_shown_once_and_revoked() {
    let app = TestApp::start().await;
    let made = run(&app, &["keys", "create", "--operator", "night shift", "--role", "operate", "--json"]).await.json();
    let (id, key) = (made["keyId"].as_str().unwrap(), made["key"].as_str().unwrap());
    let theirs = run(&app, &["keys", "create", "--provider", "gpu-box"]).await;
    let alone = theirs.expect(0).lines().nth(1).unwrap();
    assert!(alone.starts_with("runit-provider-"), "{theirs:?}");

    let listed = run_as(&app, key, &["keys", "list"]).await;
    let table = listed.table();
    let row = table.iter().find(|row| row[0] == id).expect("listed");
    assert_eq!(row[1..5], ["operator", "night", "shift", "operate"]);
    let listed = format!("{}{}", listed.out, run(&app, &["keys", "list", "--json"]).await.expect(0));
    assert!(!listed.contains(key) && !listed.contains(alone), "{listed}");

    assert_eq!(run(&app, &["keys", "revoke", id]).await.expect(0), "revoked\n");
    run_as(&app, key, &["keys", "list"]).await.expect(4);
    run(&app, &["keys", "revoke", UNKNOWN]).await.expect(3);
    for incomplete in
        [&["keys", "create"][..], &["keys", "create", "--operator", "me"], &["keys", "create", "--role", "read"]]
    {
        run(&app, incomplete).await.expect(2);
    }
}

#[tokio::test]
async fn a_key_that_may_only_read_looks_and_changes_nothing() {
    let app = TestApp::start().await;
    let session = app.register().await;
    app.claim(&session.token, 7, None).await.unwrap();
    let made = run(&app, &["keys", "create", "--operator", "screen", "--role", "read", "--json"]).await.json();
    let reader = made["key"].as_str().unwrap();
    for look in
        [&["sessions"][..], &["session", &session.id], &["events"], &["usage"], &["providers"], &["keys", "list"]]
    {
        run_as(&app, reader, look).await.expect(0);
    }
    let changes = [
        &["release", &session.id][..],
        &["cut", &session.id],
        &["remove", &session.id],
        &["keys", "create", "--provider", "p"],
        &["keys", "revoke", made["keyId"].as_str().unwrap()],
    ];
    for change in changes {
        let refused = run_as(&app, reader, change).await;
        assert_eq!((refused.code, &*refused.err), (Some(4), "runit-control: this key may only read\n"));
    }
    assert_eq!(app.status(&session).await, "LOCKED");
}

#[tokio::test]
async fn the_key_comes_from_the_environment_or_a_file_and_from_nowhere_else() {
    let app = TestApp::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, format!("{OPERATOR_KEY}\n")).unwrap();
    let with_file = ["sessions", "--key-file", file.to_str().unwrap()];
    ran(command(&url(&app), None, &with_file)).await.expect(0);
    run_as(&app, "another that opens nothing", &with_file).await.expect(0);

    let none = ran(command(&url(&app), None, &["sessions"])).await;
    none.expect(4);
    assert!(none.err.contains("RUNIT_OPERATOR_KEY") && none.err.contains("--key-file"), "{none:?}");
    run_as(&app, "", &["sessions"]).await.expect(4);
    run_as(&app, "a\nb", &["sessions"]).await.expect(4);
    run_as(&app, "a guess", &["sessions"]).await.expect(4);
    ran(command(&url(&app), None, &["sessions", "--key-file", "/nowhere/key"])).await.expect(4);

    run(&app, &["sessions", "--key", "k"]).await.expect(2);
    let in_the_url = format!("http://me:{OPERATOR_KEY}@{}", app.admin_address());
    ran(command(&url(&app), None, &["sessions", "--url", &in_the_url.replace(' ', "%20")])).await.expect(2);
    for arguments in [&["sessions", "--help"][..], &["--help"]] {
        run(&app, arguments).await.expect(0);
    }
}

#[tokio::test]
async fn a_node_that_gives_no_answer_is_an_exit_code_of_its_own() {
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    for arguments in [&["sessions"][..], &["events", "--watch"], &["sessions", "--watch"], &["cut", UNKNOWN]] {
        let unreachable = ran(command(&nobody, Some(OPERATOR_KEY), arguments)).await;
        unreachable.expect(6);
        assert!(unreachable.err.contains("Connection refused"), "{unreachable:?}");
    }

    let app = TestApp::start().await;
    let renters = format!("http://{}", app.address());
    ran(command(&renters, Some(OPERATOR_KEY), &["session", UNKNOWN])).await.expect(6);
    run(&app, &["sessions", "--url", "ftp://127.0.0.1"]).await.expect(2);
}

/// A command that goes on until it is dropped.
struct Watching {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    async fn line(&mut self) -> String {
        self.lines.next_line().await.unwrap().expect("it goes on")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Reads on until a line is as it should be.
    async fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.line().await;
            if wanted(&line) {
                return line;
            }
        }
    }
}

#[tokio::test]
async fn watched_sessions_change_as_they_do() {
    let app = TestApp::start().await;
    let mut lines = Watching::start(command(&url(&app), Some(OPERATOR_KEY), &["sessions", "--watch=1", "--json"]));
    assert_eq!(lines.json().await["total"], 0);
    let mut table = Watching::start(command(&url(&app), Some(OPERATOR_KEY), &["sessions", "--watch=1"]));
    table.until(|line| line.starts_with("SESSION")).await;

    let session = app.register().await;
    lines.until(|line| line.contains(&session.id) && line.contains("\"READY\"")).await;
    app.claim(&session.token, 7, None).await.unwrap();
    lines.until(|line| line.contains(&session.id) && line.contains("\"LOCKED\"")).await;
    let row = table.until(|line| line.contains("LOCKED") && !line.starts_with("SESSION")).await;
    assert!(row.starts_with(&session.id) && !row.contains('\x1b'), "{row}");
}

/// Passes connections on to a node, until they are cut.
struct Relay {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Relay {
    /// At a port that no client of anybody is given meanwhile, so that it can be taken up again.
    async fn somewhere(node: SocketAddr) -> Self {
        for port in 10_000 + std::process::id() as u16 % 10_000..30_000 {
            if let Ok(relay) = Self::start(SocketAddr::from(([127, 0, 0, 1], port)), node).await {
                return relay;
            }
        }
        panic!("no port is free");
    }

    async fn start(address: SocketAddr, node: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener: TcpListener = socket.listen(16)?;
        let accepting = tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                passing.spawn(async move {
                    let mut node = TcpStream::connect(node).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut node).await;
                });
            }
        });
        Ok(Self { address, accepting: accepting.abort_handle() })
    }

    /// Cuts all connections and takes no more.
    async fn cut(self) -> SocketAddr {
        self.accepting.abort();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        self.address
    }
}

#[tokio::test]
async fn watched_events_come_once_each_also_after_the_node_was_away() {
    let app = TestApp::start().await;
    let register = async |provider: &str| {
        let offer = offer_with(json!({ "providerId": provider }));
        app.client(1).post("/provider/session", offer).await.expect(200);
    };
    register("before-1").await;
    register("before-2").await;
    let relay = Relay::somewhere(app.admin_address()).await;
    let watch = ["events", "--watch", "--kind", "NEW_PROVIDER_REGISTERED", "--json"];
    let mut events = Watching::start(command(&format!("http://{}", relay.address), Some(OPERATOR_KEY), &watch));
    let mut seen = Vec::new();
    for expected in ["before-1", "before-2"] {
        seen.push(events.json().await);
        assert_eq!(seen.last().unwrap()["providerId"], expected, "what was there comes first, the oldest first");
    }
    register("while").await;
    seen.push(events.json().await);

    let address = relay.cut().await;
    register("away-1").await;
    register("away-2").await;
    let _relay = Relay::start(address, app.admin_address()).await.unwrap();
    register("after").await;
    for _ in 0..3 {
        seen.push(events.json().await);
    }
    let names: Vec<&str> = seen.iter().map(|event| event["providerId"].as_str().unwrap()).collect();
    assert_eq!(names, ["before-1", "before-2", "while", "away-1", "away-2", "after"]);

    let mut lines = Watching::start(command(&url(&app), Some(OPERATOR_KEY), &["events", "--watch", "--limit", "1"]));
    assert!(lines.line().await.starts_with("PLACE"));
    assert!(lines.line().await.contains("after"));
}

#[tokio::test]
async fn watched_events_begin_when_they_were_asked_to() {
    let app = TestApp::start().await;
    app.register().await;
    app.step(Duration::from_secs(20));
    let since = app.now().to_string();
    let watch = ["events", "--watch", "--since", &since, "--json"];
    let mut events = Watching::start(command(&url(&app), Some(OPERATOR_KEY), &watch));
    app.step(Duration::from_secs(20));
    let offer = offer_with(json!({ "providerId": "later" }));
    app.client(1).post("/provider/session", offer).await.expect(200);
    assert_eq!(events.json().await["providerId"], "later");
}

#[tokio::test]
async fn shells_complete_commands_and_options() {
    for (shell, sign) in [
        ("bash", "complete -F _runit__control"),
        ("zsh", "#compdef runit-control"),
        ("fish", "complete -c runit-control"),
    ] {
        let script = ran(command("", None, &["completions", shell])).await;
        assert!(script.expect(0).contains(sign), "{shell}");
        for command in ["sessions", "webhooks", "restore", "key-file"] {
            assert!(script.out.contains(command), "{shell}: {command}");
        }
    }
    let asked = "source <(\"$0\" completions bash); COMP_WORDS=(runit-control ses); COMP_CWORD=1
        _runit__control runit-control ses runit-control; echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["-c", asked, env!("CARGO_BIN_EXE_runit-control")]);
    assert_eq!(ran(bash).await.expect(0), "sessions session\n");
    ran(command("", None, &["completions", "tcsh"])).await.expect(2);
}
