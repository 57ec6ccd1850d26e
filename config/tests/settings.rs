//! What is taken, what is refused, and what is said about it.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use runit_config::{
    AgentSettings, Limit, LockMode, LogFormat, NodeSettings, Problems, Secret, TunnelKind, TunnelProtocol, load_agent,
    load_node, parse_agent, parse_node,
};

fn node(text: &str, environment: &[(&str, &str)]) -> Result<NodeSettings, Problems> {
    parse_node(Some((Path::new("runit.toml"), text)), environment.iter().copied())
}

fn agent(text: &str, environment: &[(&str, &str)]) -> Result<AgentSettings, Problems> {
    let named = [&[("RUNIT_AGENT__PROVIDER_ID", "lab-4")], environment].concat();
    parse_agent(Some((Path::new("agent.toml"), text)), named)
}

/// The lines below the heading.
fn complaints<T: std::fmt::Debug>(result: Result<T, Problems>) -> Vec<String> {
    result.unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_file_and_an_environment_the_defaults_hold() {
    let settings = parse_node(None, [("", ""); 0]).unwrap();

    assert_eq!(toml::to_string(&settings), toml::to_string(&NodeSettings::default()));
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let settings = node(
        "[gateway]\nthreads = 3\nkeepalive_seconds = 5\n[lock]\nmode = \"prefix\"",
        &[("RUNIT_GATEWAY__THREADS", "4")],
    )
    .unwrap();

    assert_eq!(settings.gateway.threads, 4);
    assert_eq!(settings.gateway.keepalive_seconds, 5);
    assert_eq!(settings.lock.mode, LockMode::Prefix);
    assert_eq!(settings.gateway.head_max_bytes, 32_768);
}

#[test]
fn a_variable_takes_every_kind_of_value() {
    let settings = node(
        "",
        &[
            ("RUNIT_GATEWAY__LISTEN", "0.0.0.0:80"),
            ("RUNIT_GATEWAY__PUBLIC_URL", "https://gateway.example.org"),
            ("RUNIT_UPSTREAM__HOSTS", r#"["a.example.org", "b.example.org"]"#),
            ("RUNIT_UPSTREAM__CA_FILE", "/etc/roots.pem"),
            ("RUNIT_CONTROL__GENERAL_LIMIT", "{ requests = 7, seconds = 9 }"),
            ("RUNIT_LOG__FILTER", "info,runit_gateway=debug"),
            ("RUNIT_LOG__FORMAT", "\"json\""),
        ],
    )
    .unwrap();

    assert_eq!(settings.gateway.listen, "0.0.0.0:80".parse().unwrap());
    assert_eq!(settings.gateway.public_url.as_str(), "https://gateway.example.org/");
    assert_eq!(settings.upstream.hosts, ["a.example.org", "b.example.org"]);
    assert_eq!(settings.upstream.ca_file.as_deref(), Some(Path::new("/etc/roots.pem")));
    assert_eq!(settings.control.general_limit, Limit { requests: 7, seconds: 9 });
    assert_eq!(settings.log.filter, "info,runit_gateway=debug");
    assert_eq!(settings.log.format, LogFormat::Json);
}

#[test]
fn text_that_looks_like_a_number_is_text_where_the_key_takes_text() {
    let settings = parse_agent(None, [("RUNIT_AGENT__PROVIDER_ID", "0042")]).unwrap();

    assert_eq!(settings.agent.provider_id, "0042");
}

#[test]
fn a_variable_cannot_bring_in_a_second_key() {
    let settings = parse_agent(None, [("RUNIT_AGENT__PROVIDER_ID", "1\nother = 2")]).unwrap();

    assert_eq!(settings.agent.provider_id, "1\nother = 2");
}

#[test]
fn an_agent_reads_its_tunnel_container_and_free_tables() {
    let settings = agent(
        "[tunnel]\nkind = \"direct\"\nprotocol = \"http2\"\n[container]\nbuild_args = { BASE_IMAGE = \"debian\" }\n\
         [hardware]\ngpu = \"A100\"\nmemory_gib = 80\n[pricing]\nhour = { amount = 1.5, currency = \"EUR\" }",
        &[("RUNIT_HARDWARE__CORES", "16")],
    )
    .unwrap();

    assert_eq!(settings.tunnel.kind, TunnelKind::Direct);
    assert_eq!(settings.tunnel.protocol, Some(TunnelProtocol::Http2));
    assert_eq!(settings.container.build_args["BASE_IMAGE"], "debian");
    assert_eq!(settings.hardware["memory_gib"].as_integer(), Some(80));
    assert_eq!(settings.hardware["cores"].as_integer(), Some(16));
    assert_eq!(settings.pricing["hour"]["currency"].as_str(), Some("EUR"));
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_with_its_key_and_its_place() {
    let text = "\
[gateway]
listen = \"localhost\"
treads = 8
threads = 4096
cores = [0, 1024]

[quota]
lease_min_bytes = 70000000

[cache]
size = 1
";
    let environment = [
        ("RUNIT_QUOTA__CAP_BYTES", "10GiB"),
        ("RUNIT_CONTROL__LISTEN", "127.0.0.1:9180"),
        ("RUNIT_CONTROL__COLOUR", "red"),
        ("RUNIT_KACHE__SIZE", "1"),
    ];

    let report = node(text, &environment).unwrap_err().to_string();

    let without_choices = |line: &str| line.split(", expected one of").next().unwrap().to_owned();
    assert_eq!(
        report.lines().map(without_choices).collect::<Vec<_>>(),
        [
            "10 problems in the settings:",
            "  cache (runit.toml:10): unknown section",
            "  gateway.listen (runit.toml:2): invalid socket address syntax",
            "  gateway.treads (runit.toml:3): unknown key",
            "  quota.cap_bytes (RUNIT_QUOTA__CAP_BYTES): invalid type: string \"10GiB\", expected u64",
            "  control.colour (RUNIT_CONTROL__COLOUR): unknown key",
            "  kache (RUNIT_KACHE__SIZE): unknown section",
            "  gateway.threads (runit.toml:4): 4096 is not from 0 to 1024",
            "  gateway.cores (runit.toml:5): 1024 is not from 0 to 1023",
            "  quota.lease_min_bytes (runit.toml:8): must not be more than quota.lease_max_bytes",
            "  control.listen (RUNIT_CONTROL__LISTEN): takes the same port as gateway.admin_listen",
        ]
    );
    assert!(report.contains(
        "unknown section, expected one of audit, control, gateway, limits, lock, log, quota, store, traces, upstream, webhooks"
    ));
    assert!(report.contains("unknown key, expected one of `listen`, `public_url`, `sessions_host`, `tls`"));
}

#[test]
fn a_value_of_the_wrong_type_is_not_checked_further() {
    let wrong_type =
        complaints(parse_agent(Some((Path::new("agent.toml"), "[agent]\nprovider_id = 7")), [("", ""); 0]));

    assert_eq!(wrong_type, ["agent.provider_id (agent.toml:2): invalid type: integer `7`, expected a string"]);
}

#[test]
fn a_missing_name_is_reported_as_not_set() {
    assert_eq!(complaints(parse_agent(None, [("", ""); 0])), ["agent.provider_id (not set): is required"]);
}

#[test]
fn a_single_underscore_is_reported_as_a_slip() {
    assert_eq!(
        complaints(node("", &[("RUNIT_GATEWAY_LISTEN", "127.0.0.1:1")])),
        ["gateway.listen (RUNIT_GATEWAY_LISTEN): did you mean RUNIT_GATEWAY__LISTEN?"]
    );
}

#[test]
fn variables_of_the_other_program_and_of_the_scripts_are_left_alone() {
    node("", &[("RUNIT_AGENT__PROVIDER_ID", "lab-4"), ("RUNIT_DEBIAN_MIRROR", "http://x"), ("PATH", "/bin")]).unwrap();
    agent("", &[("RUNIT_QUOTA__CAP_BYTES", "x"), ("RUNIT_LOG__FILTER", "debug")]).unwrap();
}

#[test]
fn a_section_of_the_other_program_in_the_file_is_refused() {
    let result = complaints(node("[agent]\nprovider_id = \"lab-4\"", &[]));

    assert_eq!(result.len(), 1);
    assert!(result[0].starts_with("agent (runit.toml:1): unknown section"), "{result:?}");
}

#[test]
fn a_key_outside_every_section_is_refused() {
    assert_eq!(complaints(node("listen = 1", &[])), ["listen (runit.toml:1): stands outside every [section]"]);
}

#[test]
fn a_file_that_is_not_toml_is_reported_by_line_and_its_variables_are_still_checked() {
    let result = complaints(node("[gateway]\nthreads = = 1", &[("RUNIT_GATEWAY__THREADS", "x")]));

    assert_eq!(result.len(), 2, "{result:?}");
    assert!(result[0].starts_with("runit.toml:2: "), "{result:?}");
    assert!(result[1].starts_with("gateway.threads (RUNIT_GATEWAY__THREADS): invalid type"), "{result:?}");
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    let value = OsString::from_vec(vec![b'/', 0xff]);

    let result = complaints(parse_node(None, [("RUNIT_CONTROL__DATA_DIR", value)]));

    assert_eq!(result, ["control.data_dir (RUNIT_CONTROL__DATA_DIR): is not UTF-8"]);
}

#[test]
fn keys_that_must_fit_together_are_checked_together() {
    for (text, complaint) in [
        (
            "[gateway]\nadmin_listen = \"0.0.0.0:8080\"\noperator_key = \"0123456789abcdef\"",
            "gateway.admin_listen (runit.toml:2): takes the same port as gateway.listen",
        ),
        (
            "[gateway]\nadmin_listen = \"0.0.0.0:9180\"",
            "gateway.admin_listen (runit.toml:2): needs gateway.operator_key unless it is loopback",
        ),
        (
            "[quota]\nlease_max_bytes = 1000",
            "quota.lease_min_bytes (not set): must not be more than quota.lease_max_bytes",
        ),
        (
            "[quota]\nlease_ttl_seconds = 5",
            "quota.renewal_wait_ms (not set): must be shorter than quota.lease_ttl_seconds",
        ),
        ("[store]\nca_file = \"ca.pem\"", "store.ca_file (runit.toml:2): is for store.url, which is not set"),
        (
            "[control]\nenabled = false",
            "control.enabled (runit.toml:2): can only be false with store.url: nobody would serve the API",
        ),
        (
            "[gateway]\nsessions_host = \"notebooks.example\"",
            "gateway.sessions_host (runit.toml:2): needs https:// in gateway.public_url unless it is local",
        ),
        (
            "[gateway]\nsessions_host = \"runit.example\"\npublic_url = \"https://runit.example\"",
            "gateway.sessions_host (runit.toml:2): must not be the host of gateway.public_url or a parent of it",
        ),
        (
            "[gateway]\nsessions_host = \"runit.example\"\npublic_url = \"https://notrunit.example\"\n\
             [control]\npublic_url = \"https://control.runit.example\"",
            "gateway.sessions_host (runit.toml:2): must not be the host of control.public_url or a parent of it",
        ),
        (
            "[gateway]\ntls = { certificate = \"c\", key = \"k\" }",
            "gateway.tls (runit.toml:2): needs an https:// gateway.public_url",
        ),
        (
            "[gateway]\nredirect_listen = \"127.0.0.1:80\"",
            "gateway.redirect_listen (runit.toml:2): needs an https:// gateway.public_url to redirect to",
        ),
        (
            "[gateway]\npublic_url = \"https://127.0.0.1:8443\"",
            "gateway.hsts_seconds (not set): would lock browsers out: gateway.public_url and control.public_url have one \
             host, and only one of them https://; set 0, or use it for both",
        ),
    ] {
        assert_eq!(complaints(node(text, &[])), [complaint]);
    }
}

#[test]
fn rentals_may_have_names_beside_the_gateways_or_below_localhost() {
    for text in [
        "[gateway]\nsessions_host = \"notebooks.test\"\npublic_url = \"https://gateway.runit.example\"",
        "[gateway]\nsessions_host = \"sessions.runit.example\"\npublic_url = \"https://runit.example\"",
        "[gateway]\nsessions_host = \"localhost\"\npublic_url = \"http://localhost:8080\"",
    ] {
        assert!(node(text, &[]).unwrap().gateway.sessions_host.is_some());
    }
}

#[test]
fn listeners_on_port_0_never_clash() {
    node(
        "",
        &[
            ("RUNIT_GATEWAY__LISTEN", "127.0.0.1:0"),
            ("RUNIT_GATEWAY__ADMIN_LISTEN", "127.0.0.1:0"),
            ("RUNIT_CONTROL__LISTEN", "127.0.0.1:0"),
        ],
    )
    .unwrap();
}

#[test]
fn values_out_of_range_are_refused() {
    for (section, line) in [
        ("gateway", "trusted_proxies = [\"0.0.0.0/0\"]"),
        ("gateway", "proxy_protocol = [\"10.0.0.0/8\", \"::/0\"]"),
        ("control", "trusted_proxies = [\"::/0\"]"),
        ("gateway", "public_url = \"ftp://example.org\""),
        ("gateway", "public_url = \"https://example.org/runit\""),
        ("gateway", "public_url = \"https://user@example.org\""),
        ("gateway", "sessions_host = \"127.0.0.1\""),
        ("gateway", "sessions_host = \"Notebooks.localhost\""),
        ("gateway", "sessions_host = \"notebooks.localhost.\""),
        ("gateway", "sessions_host = \"notebooks.localhost:8080\""),
        ("gateway", "operator_key = \"short\""),
        ("gateway", "head_max_bytes = 1023"),
        ("gateway", "head_timeout_ms = 0"),
        ("gateway", "websocket_idle_seconds = 0"),
        ("traces", "otlp_url = \"ftp://collector.example\""),
        ("traces", "otlp_url = \"http://user:word@collector.example\""),
        ("traces", "otlp_url = \"http://collector.example/?key=1\""),
        ("traces", "otlp_url = \"http://collector.example/#spans\""),
        ("traces", "ratio = 1.01"),
        ("traces", "ratio = -0.1"),
        ("traces", "ratio = nan"),
        ("upstream", "hosts = [\"https://example.org\"]"),
        ("upstream", "hosts = [\"Example.org\"]"),
        ("upstream", "hosts = [\"example.org.\"]"),
        ("upstream", "plain_http_hosts = [\"127.0.0.1:80\"]"),
        ("upstream", "plain_http_hosts = [\"127.1\"]"),
        ("control", "data_dir = \"\""),
        ("control", "sweep_interval_ms = 0"),
        ("control", "general_limit = { requests = 0, seconds = 1 }"),
        ("control", "general_limit = { requests = 1, seconds = 0 }"),
        ("control", "general_limit = { requests = 1 }"),
        ("control", "cors_origins = [\"https://example.org/page\"]"),
        ("quota", "cap_bytes = 0"),
        ("quota", "cap_bytes = -1"),
        ("quota", "lease_ttl_seconds = 0"),
        ("lock", "mode = \"loose\""),
        ("log", "filter = \" \""),
        ("log", "format = \"xml\""),
    ] {
        let key = format!("{section}.{}", line.split(' ').next().unwrap());

        let result = node(&format!("[{section}]\n{line}"), &[]);

        let problems = result.expect_err(line);
        assert!(problems.iter().any(|problem| problem.key == key), "{line}: {problems}");
    }
    for (section, line) in [
        ("agent", "control_url = \"10000\""),
        ("agent", "heartbeat_seconds = 61"),
        ("agent", "state_dir = \"\""),
        ("tunnel", "kind = \"ssh\""),
        ("tunnel", "cloudflared_bin = \"\""),
        ("gate", "listen = \"0.0.0.0:0\""),
        ("container", "name = \"a b\""),
        ("container", "image = \"\""),
        ("container", "memory_bytes = 1"),
        ("container", "cpus = 0.0"),
        ("container", "cpus = nan"),
        ("container", "pids = 3"),
        ("container", "workspace = \"kept\""),
        ("container", "build_args = { A = 1 }"),
    ] {
        let key = format!("{section}.{}", line.split(' ').next().unwrap());

        let problems = agent(&format!("[{section}]\n{line}"), &[]).expect_err(line);

        assert!(problems.iter().any(|problem| problem.key == key), "{line}: {problems}");
    }
}

#[test]
fn a_secret_is_printed_neither_by_debug_nor_by_a_problem() {
    const KEY: &str = "0123456789abcdef-canary";
    let settings = node("", &[("RUNIT_GATEWAY__OPERATOR_KEY", KEY)]).unwrap();
    assert_eq!(settings.gateway.operator_key.as_ref().map(Secret::expose), Some(KEY));
    assert!(!format!("{settings:?}").contains("canary"));

    for text in [
        "[gateway]\noperator_key = [\"canary\"]",
        "[gateway]\noperator_key = \"canary\"",
        "[gateway]\noperator_key = \"canary",
        "[gateway]\nother_key = \"canary\"",
        "[gatway]\noperator_key = \"canary\"",
    ] {
        let problems = node(text, &[]).unwrap_err();
        assert!(!format!("{problems} {problems:?}").contains("canary"), "{problems:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_the_problem() {
    let missing = Path::new("/nonexistent/runit.toml");

    for problems in [load_node(Some(missing)).unwrap_err(), load_agent(Some(missing)).unwrap_err()] {
        assert!(problems.to_string().contains("/nonexistent/runit.toml: No such file"), "{problems}");
    }
}

#[test]
fn a_file_on_disk_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runit.toml");
    std::fs::write(&file, "[quota]\ncap_bytes = 5_000_000\n").unwrap();

    assert_eq!(load_node(Some(&file)).unwrap().quota.cap_bytes, 5_000_000);
}

#[test]
fn limits_have_ranges_and_tables_of_their_own() {
    let settings = node("[limits]\nrequests_per_address = { per_second = 7, burst = 9 }", &[]).unwrap();
    assert_eq!((settings.limits.requests_per_address.per_second, settings.limits.requests_per_address.burst), (7, 9));
    let text = "[limits]\nconnections = 0\nrequests_per_session = { per_second = 0, burst = 1 }\n\
                guesses_per_address = { requests = 1, seconds = 0 }\nslow_seconds = 0\n\
                [gateway]\nupstream_first_byte_timeout_ms = 500\nupstream_silence_timeout_ms = 501";
    let complaints = complaints(node(text, &[]));
    assert_eq!(complaints.len(), 5, "{complaints:?}");
}
