//! Whether limits really apply: asked in a container that is made as a session's is.

use std::collections::HashMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures::StreamExt;

use super::{Engine, EngineError, refused, request};

/// Prints `name value` for each limit, from cgroups of either version.
const PROBE: &str = "\
    read_one() { cat \"/sys/fs/cgroup/$1\" 2>/dev/null || cat \"/sys/fs/cgroup/$2\" 2>/dev/null || echo none; }
    echo memory $(read_one memory.max memory/memory.limit_in_bytes)
    echo processes $(read_one pids.max pids/pids.max)
    echo cpu $(cat /sys/fs/cgroup/cpu.max 2>/dev/null ||
        cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null || echo none)
";

impl Engine {
    /// The limits that do not apply in a container, each with what it is instead. Needs the image.
    ///
    /// # Errors
    /// Such a container cannot be started.
    pub async fn try_limits(&self) -> Result<Vec<String>, EngineError> {
        let name = format!("{}-probe", self.instance.container());
        self.remove_container(&name).await?;
        let body = ContainerCreateBody {
            image: Some(self.settings.image.clone()),
            entrypoint: Some(vec!["sh".to_owned(), "-c".to_owned(), PROBE.to_owned()]),
            labels: Some(request::labels(self.instance.label())),
            host_config: Some(request::confined(&self.settings)),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        self.docker.create_container(Some(options), body).await.map_err(refused("create a container"))?;
        let asked = self.ask(&name).await;
        self.remove_container(&name).await?;
        Ok(wrong(&asked?, &self.settings))
    }

    async fn ask(&self, name: &str) -> Result<String, EngineError> {
        let started = self.docker.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(refused("start a container with limits"))?;
        // Its status says nothing that its output does not.
        let _ = self.docker.wait_container(name, None::<WaitContainerOptions>).next().await;
        let options = LogsOptionsBuilder::default().stdout(true).build();
        let chunks = self.docker.logs(name, Some(options));
        let text: Vec<String> = chunks.filter_map(|chunk| async { chunk.ok().map(|c| c.to_string()) }).collect().await;
        Ok(text.concat())
    }
}

fn wrong(output: &str, settings: &runit_config::Container) -> Vec<String> {
    let found: HashMap<&str, &str> = output.lines().filter_map(|line| line.trim().split_once(' ')).collect();
    let exactly = |name: &str, wanted: u64| {
        let is = found.get(name).copied().unwrap_or("none");
        (is != wanted.to_string()).then(|| format!("{name}: {is} instead of {wanted}"))
    };
    let processor = || {
        let is = found.get("cpu").copied().unwrap_or("none");
        let cores = is.split_once(' ').and_then(|(quota, period)| {
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|period| *period > 0.0)?)
        });
        // Quotas are whole microseconds.
        let applies = cores.is_some_and(|cores| (cores - settings.cpus).abs() < 0.01);
        (!applies).then(|| format!("processor: {is} instead of {} cores", settings.cpus))
    };
    [exactly("memory", settings.memory_bytes), exactly("processes", settings.pids), processor()]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_apply_are_recognised_in_both_versions_of_cgroups() {
        let settings = runit_config::Container::default();
        assert!(wrong("memory 4294967296\nprocesses 100\ncpu 200000 100000\n", &settings).is_empty());
        assert!(wrong("memory 4294967296\nprocesses 100\ncpu 20000 10000\n", &settings).is_empty());
        let missing = wrong("memory max\nprocesses none\ncpu max 100000\n", &settings);
        assert_eq!(
            missing,
            [
                "memory: max instead of 4294967296",
                "processes: none instead of 100",
                "processor: max 100000 instead of 2 cores"
            ]
        );
        assert_eq!(wrong("", &settings).len(), 3);
    }
}
