//! `doctor`: whether this machine can rent out notebooks, and what to do where it cannot.

use std::path::Path;
use std::time::{Duration, SystemTime};

use runit_config::{AgentSettings, TunnelKind};
use serde::Serialize;

use crate::console::print;
use crate::egress::Firewall;
use crate::engine::{Engine, EngineError};
use crate::hands::chain;
use crate::hardware;
use crate::instance::Instance;
use crate::runtime::{self, Escape};
use crate::tunnel;

const GIB: u64 = 1 << 30;
/// An image, a workspace, and what a notebook downloads.
const PLENTY_BYTES: u64 = 20 * GIB;
/// Not even the image.
const SCANT_BYTES: u64 = 3 * GIB;
const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP dates have whole seconds, and an answer takes a while.
const CLOCK_OFFSET: Duration = Duration::from_secs(5);

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Warning,
    /// It will not work.
    Bad,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), advice: None }
    }

    fn warning(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Bad, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Makes all checks and prints them; whether nothing is bad.
pub async fn doctor(settings: &AgentSettings, as_json: bool) -> bool {
    let checks = examine(settings).await;
    if as_json {
        print(&serde_json::json!({ "checks": checks }).to_string());
    } else {
        checks.iter().for_each(|check| print(&for_people(check)));
    }
    checks.iter().all(|check| check.verdict != Verdict::Bad)
}

async fn examine(settings: &AgentSettings) -> Vec<Check> {
    let directory = &settings.agent.state_dir;
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.clone());
    let instance = Instance::new(&directory, settings.container.name.as_deref());
    let firewall = Firewall::new(&settings.egress, &instance);
    let engine = Engine::connect(settings.container.clone(), Vec::new(), instance).await;
    let mut checks = match engine {
        Ok(engine) => of_the_engine(settings, &engine).await,
        Err(error) => vec![Check::bad(
            "engine",
            chain(&error),
            "install Docker (Debian: docker.io), start it, and let this user reach it",
        )],
    };
    checks.push(of_the_rules(&firewall).await);
    checks.push(of_the_tunnel(settings).await);
    checks.extend(of_control(settings).await);
    checks.push(of_gpus(settings).await);
    checks
}

async fn of_the_engine(settings: &AgentSettings, engine: &Engine) -> Vec<Check> {
    let (info, versions) = match (engine.info().await, engine.versions().await) {
        (Ok(info), Ok(versions)) => (info, versions),
        (Err(error), _) | (_, Err(error)) => return vec![Check::bad("engine", chain(&error), "see the engine's log")],
    };
    let data = info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".to_owned());
    let mut checks = vec![Check::good("engine", format!("Docker {}", versions.engine))];
    checks.push(match runtime::runc(&versions.runc) {
        Some(escape) => of_an_escape("runc", &escape),
        None => Check::good("runc", versions.runc),
    });
    checks.push(of_the_disk(Path::new(&data)));
    let is_built = engine.has_image().await;
    checks.push(match &is_built {
        Ok(true) => Check::good("image", settings.container.image.clone()),
        Ok(false) => {
            Check::warning("image", "not built yet", "the first start builds it; `runit-agent build` does now")
        }
        Err(error) => Check::bad("image", chain(error), "see the engine's log"),
    });
    checks.push(match (engine.check().await, is_built) {
        (Err(error), _) => Check::bad("limits", chain(&error), "a container without limits takes the machine with it"),
        (Ok(()), Ok(true)) => of_the_limits(engine.try_limits().await),
        (Ok(()), _) => Check::warning(
            "limits",
            "the engine says that it can",
            "run this again once the image is built: it is tried then",
        ),
    });
    checks
}

fn of_an_escape(what: &'static str, escape: &Escape) -> Check {
    Check::warning(
        what,
        escape.to_string(),
        "bring it up to date, or look for these names in its changelog; [container] require_patched_runtime = true refuses to start with it",
    )
}

fn of_the_disk(data: &Path) -> Check {
    let place = data.display();
    match hardware::free_bytes(data) {
        None => Check::warning(
            "disk",
            format!("{place} cannot be looked at"),
            "run this as the user that the agent runs as",
        ),
        Some(free) => {
            let found = format!("{} free in {place}", indicatif::BinaryBytes(free));
            let advice = "the image takes 1 GiB, and a renter's files are not limited: make room";
            match free {
                ..SCANT_BYTES => Check::bad("disk", found, advice),
                SCANT_BYTES..PLENTY_BYTES => Check::warning("disk", found, advice),
                _ => Check::good("disk", found),
            }
        }
    }
}

fn of_the_limits(tried: Result<Vec<String>, EngineError>) -> Check {
    match tried {
        Ok(wrong) if wrong.is_empty() => {
            Check::good("limits", "memory, processes and processor time apply in a container")
        }
        Ok(wrong) => Check::bad("limits", wrong.join("; "), "enable these controllers in the kernel (cgroups)"),
        Err(error) => Check::bad("limits", chain(&error), "a container must start with them"),
    }
}

async fn of_the_rules(firewall: &Firewall) -> Check {
    match firewall.check().await {
        Ok(()) if firewall.restricts() => Check::good("egress", "rules can be set"),
        Ok(()) => Check::warning(
            "egress",
            "unrestricted",
            "a renter's code reaches your network; [egress] mode = \"restricted\" keeps it out",
        ),
        Err(error) => Check::bad("egress", chain(&error), "see docs/AGENT.md"),
    }
}

async fn of_the_tunnel(settings: &AgentSettings) -> Check {
    if settings.tunnel.kind == TunnelKind::Direct {
        return Check::good("tunnel", "none: the gateway runs on this machine");
    }
    match tunnel::checked_version(&settings.tunnel).await {
        Ok(version) => Check::good("tunnel", format!("cloudflared {version}")),
        Err(error) => Check::bad("tunnel", chain(&error), "see docs/AGENT.md"),
    }
}

async fn of_control(settings: &AgentSettings) -> Vec<Check> {
    let url = &settings.agent.control_url;
    let client =
        reqwest::Client::builder().timeout(CONTROL_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
    let advice = "check [agent] control_url, and whether a firewall or proxy is in between";
    let answer = match client {
        Ok(client) => client.get(url.clone()).send().await,
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return vec![Check::bad("control", format!("{url}: {}", chain(&error.without_url())), advice)],
    };
    let (status, date) = (answer.status(), answer.headers().get(reqwest::header::DATE).cloned());
    let is_control = answer.text().await.is_ok_and(|text| text.contains("RUNIT control plane"));
    let control = match is_control {
        true => Check::good("control", url.to_string()),
        false => Check::bad("control", format!("{url} answers {status}, but is no control API"), advice),
    };
    let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    std::iter::once(control).chain(date.map(|date| of_the_clock(date, SystemTime::now()))).collect()
}

fn of_the_clock(theirs: SystemTime, ours: SystemTime) -> Check {
    let offset = ours.duration_since(theirs).unwrap_or_else(|error| error.duration());
    if offset <= CLOCK_OFFSET {
        return Check::good("clock", "agrees with control's");
    }
    let found = format!("{} s from control's", offset.as_secs());
    Check::warning("clock", found, "synchronise it (NTP): certificates are checked by it, and days are counted by it")
}

async fn of_gpus(settings: &AgentSettings) -> Check {
    if settings.container.gpus.is_empty() {
        return Check::good("gpu", "none is offered");
    }
    let gpus = match hardware::gpus(&settings.container).await {
        Ok(gpus) => gpus,
        Err(error) => return Check::bad("gpu", chain(&error), "install NVIDIA's driver, or set [container] gpus = []"),
    };
    match crate::engine::nvidia_toolkit().await {
        None => Check::bad(
            "gpu",
            "there is no NVIDIA container toolkit",
            "install nvidia-container-toolkit and restart the engine",
        ),
        Some(version) => match runtime::nvidia_toolkit(&version) {
            Some(escape) => of_an_escape("gpu", &escape),
            None => {
                let names: Vec<String> = gpus.iter().map(|gpu| format!("{} ({})", gpu.name, gpu.driver)).collect();
                Check::good("gpu", format!("{}; toolkit {version}", names.join(", ")))
            }
        },
    }
}

fn for_people(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Good => "good",
        Verdict::Warning => "warning",
        Verdict::Bad => "BAD",
    };
    let advice = check.advice.as_ref().map(|advice| format!("\n{:9}{:9}-> {advice}", "", "")).unwrap_or_default();
    format!("{verdict:9}{:9}{}{advice}", check.what, check.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_of_whichever_way() {
        let now = SystemTime::now();
        let verdict = |theirs| of_the_clock(theirs, now).verdict;
        assert_eq!(verdict(now - Duration::from_secs(4)), Verdict::Good);
        assert_eq!(verdict(now - Duration::from_secs(60)), Verdict::Warning);
        assert_eq!(verdict(now + Duration::from_secs(60)), Verdict::Warning);
    }

    #[test]
    fn a_limit_that_does_not_apply_is_bad_and_named() {
        let check = of_the_limits(Ok(vec!["processes: max instead of 100".to_owned()]));
        assert_eq!((check.verdict, check.found.as_str()), (Verdict::Bad, "processes: max instead of 100"));
        assert_eq!(of_the_limits(Ok(Vec::new())).verdict, Verdict::Good);
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let said = for_people(&Check::bad("disk", "1 GiB free", "make room"));
        assert_eq!(said, "BAD      disk     1 GiB free\n                  -> make room");
    }
}
