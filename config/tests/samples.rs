//! The samples and `docs/CONFIGURATION.md` against the types: every key is there, with its default.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeSet;
use std::path::Path;

use runit_config::{AgentSettings, NodeSettings, Problems, parse_agent, parse_node};

const NODE_SAMPLE: &str = include_str!("../samples/runit.toml");
const AGENT_SAMPLE: &str = include_str!("../samples/agent.toml");
const DOCUMENT: &str = include_str!("../../docs/CONFIGURATION.md");

fn node(text: &str) -> Result<NodeSettings, Problems> {
    parse_node(Some((Path::new("runit.toml"), text)), [("", ""); 0])
}

fn agent(text: &str) -> Result<AgentSettings, Problems> {
    parse_agent(Some((Path::new("agent.toml"), text)), [("", ""); 0])
}

#[test]
fn the_node_sample_is_the_defaults() {
    let sample = node(NODE_SAMPLE).unwrap();

    assert!(sample.gateway.operator_key.is_none());
    assert_eq!(toml::to_string(&sample), toml::to_string(&NodeSettings::default()));
}

#[test]
fn the_agent_sample_is_the_defaults_but_for_the_required_name() {
    let sample = agent(&AGENT_SAMPLE.replace("#provider_id", "provider_id")).unwrap();

    let mut expected = AgentSettings::default();
    expected.agent.provider_id = "lab-4".to_owned();
    assert_eq!(sample, expected);
}

#[test]
fn the_samples_show_every_key_and_their_optional_lines_work() {
    // Some of them go with TLS only.
    let node_sample = with_optional_keys(NODE_SAMPLE).replace("\"http://", "\"https://");
    node(&node_sample).unwrap();
    assert_eq!(keys_in(&node_sample), known_keys(NodeSettings::default(), |text| node(text).unwrap_err()));

    let agent_sample = with_optional_keys(AGENT_SAMPLE);
    agent(&agent_sample).unwrap();
    assert_eq!(keys_in(&agent_sample), known_keys(AgentSettings::default(), |text| agent(text).unwrap_err()));
}

#[test]
fn the_document_names_every_key_and_no_other() {
    let documented: BTreeSet<String> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .collect();
    let mut known = known_keys(NodeSettings::default(), |text| node(text).unwrap_err());
    known.extend(known_keys(AgentSettings::default(), |text| agent(text).unwrap_err()));

    assert_eq!(documented, known);
}

#[test]
fn the_document_gives_every_plain_default() {
    let tables = [
        toml::Table::try_from(NodeSettings::default()).unwrap(),
        toml::Table::try_from(AgentSettings::default()).unwrap(),
    ];
    for (section, keys) in tables.iter().flatten() {
        for (key, value) in keys.as_table().unwrap() {
            let shown = match value {
                _ if key == "provider_id" => "**required**".to_owned(),
                toml::Value::String(text) => format!("`{}`", text.trim_end_matches('/')),
                toml::Value::Array(_) => "`[]`".to_owned(),
                toml::Value::Table(limit) if limit.contains_key("requests") => {
                    format!("{} in {} s", limit["requests"], limit["seconds"])
                }
                toml::Value::Table(rate) if rate.contains_key("burst") => {
                    format!("{}/s, burst {}", rate["per_second"], rate["burst"])
                }
                toml::Value::Table(_) => "`{}`".to_owned(),
                number => number.to_string(),
            };
            let row = format!("| `{section}.{key}` | {shown} |");
            assert!(DOCUMENT.contains(&row), "docs/CONFIGURATION.md has no row that begins {row:?}");
        }
    }
}

/// `#key = value` becomes `key = value`; `# text` stays a comment.
fn with_optional_keys(sample: &str) -> String {
    let is_key = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase());
    let lines = sample.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn keys_in(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (section, table) in text.parse::<toml::Table>().unwrap() {
        let table = table.as_table().unwrap();
        keys.extend(table.keys().map(|key| format!("{section}.{key}")));
        if table.is_empty() {
            keys.insert(section);
        }
    }
    keys
}

/// Asks the types themselves: each section lists its keys when it is given one that it does not know.
fn known_keys(defaults: impl serde::Serialize, refusal: impl Fn(&str) -> Problems) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for section in toml::Table::try_from(defaults).unwrap().keys() {
        let problems = refusal(&format!("[{section}]\nno_such_key = 1\n[no_such_section]\n"));
        let asked = format!("{section}.no_such_key");
        match problems.iter().find(|problem| problem.key == asked) {
            Some(problem) => {
                known.extend(problem.message.split('`').skip(1).step_by(2).map(|key| format!("{section}.{key}")));
            }
            // A free table takes any key.
            None => {
                known.insert(section.clone());
            }
        }
    }
    known
}
