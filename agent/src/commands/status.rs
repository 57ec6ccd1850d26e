//! `status`: what the agent that runs with these settings does, for people and for programs.

use std::io;
use std::path::Path;

use runit_config::AgentSettings;
use serde_json::{Value, json};

use crate::console::print;
use crate::state::holder;
use crate::status::{Phase, Status};

/// How `status` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A renter is served, or would be.
    Serving,
    /// No agent runs with these settings.
    NotRunning,
    /// One runs, but nobody would be served at the moment.
    NotServing,
}

/// Prints the state of the agent, as JSON if wanted.
///
/// # Errors
/// The state directory cannot be read.
pub fn status(settings: &AgentSettings, as_json: bool) -> io::Result<Answer> {
    let directory = &settings.agent.state_dir;
    let found = running(directory)?;
    let text = match &found {
        _ if as_json => for_programs(found.as_ref()).to_string(),
        None => "no agent runs with these settings".to_owned(),
        Some((_, None)) => "the agent is starting".to_owned(),
        Some((pid, Some(status))) => for_people(*pid, status),
    };
    print(&text);
    Ok(match found {
        None => Answer::NotRunning,
        Some((_, Some(status))) if status.phase.serves() => Answer::Serving,
        Some(_) => Answer::NotServing,
    })
}

fn running(directory: &Path) -> io::Result<Option<(i32, Option<Status>)>> {
    let Some(pid) = holder(directory)? else { return Ok(None) };
    Ok(Some((pid.as_raw_nonzero().get(), Status::read(directory)?)))
}

fn for_programs(found: Option<&(i32, Option<Status>)>) -> Value {
    match found {
        None => json!({ "running": false }),
        Some((pid, status)) => {
            let mut all = json!(status);
            if !all.is_object() {
                all = json!({ "phase": Phase::Starting });
            }
            all["running"] = true.into();
            all["pid"] = (*pid).into();
            all
        }
    }
}

fn for_people(pid: i32, status: &Status) -> String {
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready, nobody rents it",
        Phase::Asleep => "ready, the container sleeps until somebody comes",
        Phase::Rented => "rented",
        Phase::Recycling => "the workspace is being replaced",
        Phase::Unreachable => "cannot be reached: see the agent's log",
        Phase::Stopping => "stopping",
    };
    let (container, gate) = (&status.container, &status.gate);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let use_of_it = match container["busy"].as_str() {
        Some(why) => why.to_owned(),
        None => format!("idle for {} s", number(&container["idleSeconds"])),
    };
    let cap = match container["egressCapBytes"].as_u64() {
        Some(cap) => format!(" of {}", bytes(cap)),
        None => String::new(),
    };
    let cut = if container["egressCut"] == true { ", cut off" } else { "" };
    let killed = match number(&container["killedForMemory"]) {
        0 => String::new(),
        count => format!(", {count} killed for memory"),
    };
    [
        format!("session    {}", status.session_id),
        format!("state      {phase}"),
        format!("agent      process {pid}"),
        format!("url        {}", status.url.as_deref().unwrap_or("none")),
        format!("container  {use_of_it}; {}{killed}", resources(container)),
        format!("its own    {}{cap} in 24 h{cut}", bytes(number(&container["egressBytes"]))),
        format!(
            "gate       {} requests, {} refused, {} WebSockets open, {} in, {} out",
            number(&gate["admitted"]),
            number(&gate["refused"]),
            number(&gate["upgradedOpen"]),
            bytes(number(&gate["bytesIn"])),
            bytes(number(&gate["bytesOut"]))
        ),
    ]
    .join("\n")
}

/// What the container uses of what it may.
fn resources(container: &Value) -> String {
    let limits = &container["limits"];
    let part = |used: &Value, most: &Value, shown: fn(u64) -> String, unit: &str| {
        let most = most.as_u64().map(|most| format!(" of {}", shown(most))).unwrap_or_default();
        format!("{}{most}{unit}", shown(used.as_u64().unwrap_or(0)))
    };
    let cores = |millicores: u64| format!("{}.{:02}", millicores / 1_000, millicores % 1_000 / 10);
    [
        part(&container["millicores"], &limits["millicores"], cores, " cores"),
        part(&container["memoryBytes"], &limits["memoryBytes"], bytes, ""),
        part(&container["processes"], &limits["processes"], |count| count.to_string(), " processes"),
    ]
    .join(", ")
}

fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            session_id: "6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11".parse().expect("an id"),
            phase: Phase::Rented,
            url: Some("https://a-b.trycloudflare.com".to_owned()),
            container: json!({ "busy": "a kernel is busy", "memoryBytes": 1 << 20, "processes": 15,
                "millicores": 1_250, "limits": { "millicores": 2_000, "memoryBytes": 4_u64 << 30, "processes": 100 },
                "egressBytes": 3_u64 << 30, "egressCapBytes": 4_u64 << 30, "egressCut": false, "killedForMemory": 1 }),
            gate: json!({ "admitted": 12, "refused": 0, "upgradedOpen": 2, "bytesIn": 2048, "bytesOut": 0 }),
        }
    }

    #[test]
    fn people_get_lines() {
        let expected = "session    6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11\n\
                        state      rented\n\
                        agent      process 7\n\
                        url        https://a-b.trycloudflare.com\n\
                        container  a kernel is busy; 1.25 of 2.00 cores, 1.00 MiB of 4.00 GiB, 15 of 100 processes, 1 killed for memory\n\
                        its own    3.00 GiB of 4.00 GiB in 24 h\n\
                        gate       12 requests, 0 refused, 2 WebSockets open, 2.00 KiB in, 0 B out";
        assert_eq!(for_people(7, &status()), expected);
    }

    #[test]
    fn programs_get_one_object_whatever_there_is() {
        assert_eq!(for_programs(None), json!({ "running": false }));
        let starting = for_programs(Some(&(7, None)));
        assert_eq!(starting, json!({ "running": true, "pid": 7, "phase": "starting" }));
        let rented = for_programs(Some(&(7, Some(status()))));
        assert_eq!((&rented["pid"], &rented["phase"]), (&json!(7), &json!("rented")));
    }
}
