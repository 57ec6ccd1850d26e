//! What the machine has: what renters are told of it where the provider says nothing else.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use runit_config::{Container, Workspace};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::process::Command;

const NVIDIA_SMI: &str = "nvidia-smi";
const QUERY: [&str; 2] = ["--query-gpu=index,uuid,name,memory.total,driver_version", "--format=csv,noheader,nounits"];
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One GPU, as nvidia-smi tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    #[serde(skip)]
    index: String,
    #[serde(skip)]
    uuid: String,
    /// Its product name.
    pub name: String,
    /// Its memory, in MiB; none where it does not say.
    pub memory_mib: Option<u64>,
    /// The driver's version.
    pub driver: String,
}

/// Why the GPUs that were asked for are not there.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// No driver that says anything.
    #[error("[container] gpus is set, but {NVIDIA_SMI} does not list any ({0}): is the NVIDIA driver installed?")]
    NoDriver(String),
    /// There is no such GPU.
    #[error("[container] gpus names {0}, which {NVIDIA_SMI} does not list")]
    Unknown(String),
}

/// The GPUs that the settings give to the container.
///
/// # Errors
/// They are not there.
pub async fn gpus(settings: &Container) -> Result<Vec<Gpu>, GpuError> {
    if settings.gpus.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Command::new(NVIDIA_SMI).args(QUERY).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Err(_) => return Err(GpuError::NoDriver("no answer".to_owned())),
        Ok(Err(error)) => return Err(GpuError::NoDriver(error.to_string())),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return Err(GpuError::NoDriver(said.lines().next().unwrap_or("no reason given").escape_debug().to_string()));
    }
    chosen(&listed(&String::from_utf8_lossy(&output.stdout)), &settings.gpus)
}

/// What `nvidia-smi --query-gpu=...` lists. A line that is not of five fields is none of a GPU.
fn listed(output: &str) -> Vec<Gpu> {
    let line = |line: &str| match line.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [index, uuid, name, memory, driver] => Some(Gpu {
            index: index.to_owned(),
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            memory_mib: memory.parse().ok(),
            driver: driver.to_owned(),
        }),
        _ => None,
    };
    output.lines().filter_map(line).collect()
}

fn chosen(there: &[Gpu], wanted: &[String]) -> Result<Vec<Gpu>, GpuError> {
    if there.is_empty() {
        return Err(GpuError::NoDriver("it lists nothing".to_owned()));
    }
    if wanted == ["all"] {
        return Ok(there.to_vec());
    }
    let find = |wanted: &String| there.iter().find(|gpu| gpu.index == *wanted || gpu.uuid == *wanted).cloned();
    wanted.iter().map(|wanted| find(wanted).ok_or_else(|| GpuError::Unknown(wanted.clone()))).collect()
}

/// What renters are told: what was found, and over it what the provider says.
pub fn told(settings: &Container, gpus: &[Gpu], data: &Path, said: Map<String, Value>) -> Value {
    let mut told = Map::new();
    if let Some(model) = processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()) {
        told.insert("cpu".to_owned(), model.into());
    }
    told.insert("cores".to_owned(), settings.cpus.into());
    told.insert("memoryBytes".to_owned(), settings.memory_bytes.into());
    if let Some(bytes) = free_bytes(data) {
        told.insert("diskFreeBytes".to_owned(), bytes.into());
    }
    if !gpus.is_empty() {
        told.insert("gpu".to_owned(), json!(gpus));
    }
    let workspace = match settings.workspace {
        Workspace::Ephemeral => "ephemeral",
        Workspace::Persistent => "persistent",
    };
    told.extend(said);
    // Not for the provider to say otherwise.
    told.insert("workspace".to_owned(), workspace.into());
    Value::Object(told)
}

/// What may still be written below `path`, in bytes.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

fn processor(cpuinfo: &str) -> Option<String> {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(model.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form that nvidia-smi writes: two cards of one machine; a card in MIG mode, whose memory is not told.
    const TWO: &str = "0, GPU-7c3ab1a2-0d5e-4f0e-9d07-1d9e6b5e1a11, NVIDIA GeForce RTX 4090, 24564, 550.127.05\n\
                       1, GPU-1f1de1b4-aa0e-4b56-8f6d-9d2f6f1a9b22, NVIDIA GeForce RTX 4090, 24564, 550.127.05\n";
    const MIG: &str = "0, GPU-aa, NVIDIA A100-SXM4-40GB, [N/A], 535.183.06\n";

    #[test]
    fn cards_are_chosen_by_index_or_uuid() {
        let two = listed(TWO);
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|one| (*one).to_owned()).collect();
            chosen(&two, &wanted).map(|gpus| gpus.into_iter().map(|gpu| gpu.index).collect::<Vec<_>>())
        };
        assert_eq!(names(&["all"]).expect("both"), ["0", "1"]);
        assert_eq!(names(&["1"]).expect("one"), ["1"]);
        assert_eq!(names(&["GPU-7c3ab1a2-0d5e-4f0e-9d07-1d9e6b5e1a11"]).expect("one"), ["0"]);
        assert!(matches!(names(&["2"]), Err(GpuError::Unknown(gpu)) if gpu == "2"));
    }

    #[test]
    fn a_machine_without_cards_is_refused() {
        let none = listed("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n");
        assert!(matches!(chosen(&none, &["all".to_owned()]), Err(GpuError::NoDriver(_))));
    }

    #[test]
    fn renters_are_told_of_cards_without_their_serial_numbers() {
        let told = told(&Container::default(), &listed(TWO)[..1], Path::new("/"), Map::new());
        let card = json!([{ "name": "NVIDIA GeForce RTX 4090", "memoryMib": 24564, "driver": "550.127.05" }]);
        assert_eq!(told["gpu"], card);
        assert_eq!(listed(MIG)[0].memory_mib, None);
        assert_eq!((&told["cores"], &told["workspace"]), (&json!(2.0), &json!("ephemeral")));
        assert!(told["diskFreeBytes"].as_u64().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn the_provider_may_say_it_otherwise_but_for_the_workspace() {
        let said = json!({ "gpu": "none", "workspace": "clean, I swear" }).as_object().cloned().expect("an object");
        let settings = Container { workspace: Workspace::Persistent, ..Container::default() };
        let told = told(&settings, &[], Path::new("/"), said);
        assert_eq!((&told["gpu"], &told["workspace"]), (&json!("none"), &json!("persistent")));
    }

    #[test]
    fn the_processors_name_is_read() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.80GHz\n";
        assert_eq!(processor(cpuinfo).as_deref(), Some("Intel(R) Xeon(R) CPU @ 2.80GHz"));
    }
}
