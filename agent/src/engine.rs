//! The Docker engine: the container that a renter works in, its volume, its image.
//!
//! Answers for what the agent asks of the engine. What a container may do is `request`; how its image comes about is
//! `image`. Everything made here carries this agent's labels, and only what carries them is ever removed.

mod error;
mod image;
mod limits;
mod progress;
mod request;
mod watching;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{NetworkCreateRequest, SystemInfo, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use runit_core::{Secret, SessionId};

use crate::instance::Instance;

pub use error::EngineError;
use error::{is_missing, no_gpu, refused, unless_gone};
pub use image::ImageError;
pub use request::{INSTANCE_LABEL, base_path};
pub use watching::{Counted, Happening};

/// Names a persistent workspace's volume: no hexadecimal suffix.
const KEPT_VOLUME: &str = "workspace";
/// How long a container may take to end when it is stopped.
const STOP_SECONDS: i32 = 10;

/// A connection to the engine, and what to run there.
#[derive(Debug)]
pub struct Engine {
    docker: Docker,
    settings: runit_config::Container,
    /// The container's name servers; none: the engine's choice.
    dns: Vec<IpAddr>,
    instance: Instance,
}

/// What one renter gets, and what guards it. Lives as long as its volume, which may be longer than a container.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The volume's name.
    pub volume: String,
    /// What a request must bring to pass the gate. Never told to the container.
    pub gate_secret: Secret,
    /// What a request must bring to Jupyter.
    pub jupyter_token: Secret,
}

/// See [`Engine::versions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Of the engine.
    pub engine: String,
    /// Of the runtime that it starts containers with.
    pub runc: String,
}

/// The version of the NVIDIA container toolkit; none where there is none.
pub async fn nvidia_toolkit() -> Option<String> {
    let asked = tokio::process::Command::new("nvidia-ctk").arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(10), asked).await.ok()?.ok()?;
    crate::runtime::nvidia_toolkit_version(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` names, or the one on this machine. `instance` tells what this agent
    /// makes from what other agents on the machine do.
    ///
    /// # Errors
    /// No engine answers.
    pub async fn connect(
        settings: runit_config::Container,
        dns: Vec<IpAddr>,
        instance: Instance,
    ) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_defaults().map_err(EngineError::Unreachable)?;
        let docker = docker.negotiate_version().await.map_err(EngineError::Unreachable)?;
        Ok(Self { docker, settings, dns, instance })
    }

    /// Makes sure that the engine can hold a container to its limits, and that the container's name is free.
    ///
    /// # Errors
    /// It cannot, or the name is somebody else's.
    pub async fn check(&self) -> Result<(), EngineError> {
        let missing = missing_limits(&self.info().await?);
        if !missing.is_empty() {
            return Err(EngineError::Unlimited(missing));
        }
        self.has_own().await.map(drop)
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn info(&self) -> Result<SystemInfo, EngineError> {
        self.docker.info().await.map_err(EngineError::Unreachable)
    }

    /// The versions of the engine and of what it runs containers with; empty where it does not say.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn versions(&self) -> Result<Versions, EngineError> {
        let version = self.docker.version().await.map_err(EngineError::Unreachable)?;
        let components = version.components.unwrap_or_default();
        let runc = components.into_iter().find(|component| component.name == "runc").map(|runc| runc.version);
        Ok(Versions { engine: version.version.unwrap_or_default(), runc: runc.unwrap_or_default() })
    }

    /// Makes sure that the image is there, and builds it if it is not.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn ensure_image(&self) -> Result<(), EngineError> {
        Ok(image::ensure(&self.docker, &self.settings).await?)
    }

    /// Builds the image, whether it is there or not.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn build_image(&self) -> Result<(), EngineError> {
        Ok(image::build(&self.docker, &self.settings).await?)
    }

    /// What the next workspace's volume is called: always the same where it is persistent, else one that `suffix` makes
    /// new.
    pub fn volume_name(&self, suffix: &str) -> String {
        match self.settings.workspace {
            runit_config::Workspace::Ephemeral => self.instance.volume(suffix),
            runit_config::Workspace::Persistent => self.instance.volume(KEPT_VOLUME),
        }
    }

    /// Whether the image is there.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn has_image(&self) -> Result<bool, EngineError> {
        Ok(image::is_there(&self.docker, &self.settings.image).await?)
    }

    /// Removes every container, volume and network of this agent, also those of a run that was killed. A persistent
    /// workspace's volume stays, unless `with_files`.
    ///
    /// # Errors
    /// The engine does not answer, refuses, or keeps something.
    pub async fn remove_all(&self, with_files: bool) -> Result<(), EngineError> {
        let containers = ListContainersOptionsBuilder::default().all(true).filters(&self.ours()).build();
        let containers = self.docker.list_containers(Some(containers)).await.map_err(refused("list containers"))?;
        for id in containers.into_iter().filter_map(|container| container.id) {
            self.remove_container(&id).await?;
        }
        let volumes = ListVolumesOptionsBuilder::default().filters(&self.ours()).build();
        let volumes = self.docker.list_volumes(Some(volumes)).await.map_err(refused("list volumes"))?;
        let kept = (self.settings.workspace == runit_config::Workspace::Persistent && !with_files)
            .then(|| self.instance.volume(KEPT_VOLUME));
        for volume in volumes.volumes.into_iter().flatten().filter(|volume| Some(&volume.name) != kept.as_ref()) {
            let removed = self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
            unless_gone(removed).map_err(refused("remove a volume"))?;
        }
        let networks = ListNetworksOptionsBuilder::default().filters(&self.ours()).build();
        let networks = self.docker.list_networks(Some(networks)).await.map_err(refused("list networks"))?;
        for id in networks.into_iter().filter_map(|network| network.id) {
            unless_gone(self.docker.remove_network(&id).await).map_err(refused("remove a network"))?;
        }
        Ok(())
    }

    /// Makes the container's own network if it is not there yet: a bridge with nobody else on it, and without IPv6.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn ensure_network(&self) -> Result<(), EngineError> {
        let name = self.instance.network();
        match self.docker.inspect_network(&name, None::<InspectNetworkOptions>).await {
            Ok(found)
                if found.labels.as_ref().and_then(|labels| labels.get(INSTANCE_LABEL)).map(String::as_str)
                    == Some(self.instance.label()) =>
            {
                return Ok(());
            }
            Ok(_) => return Err(EngineError::NetworkTaken(name)),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(EngineError::Refused("inspect the network", error)),
        }
        let request = NetworkCreateRequest {
            name,
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            options: Some(HashMap::from([("com.docker.network.bridge.name".to_owned(), self.instance.bridge())])),
            labels: Some(request::labels(self.instance.label())),
            ..Default::default()
        };
        self.docker.create_network(request).await.map(drop).map_err(refused("create a network"))
    }

    /// Makes the workspace's volume if it is not there yet; returns what to show as its place.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn ensure_volume(&self, workspace: &Workspace) -> Result<String, EngineError> {
        let request = VolumeCreateRequest {
            name: Some(workspace.volume.clone()),
            labels: Some(request::labels(self.instance.label())),
            ..Default::default()
        };
        let volume = self.docker.create_volume(request).await.map_err(refused("create a volume"))?;
        Ok(volume.mountpoint)
    }

    /// Starts a container on the workspace, in place of the one that this agent had; returns where Jupyter will answer.
    ///
    /// # Errors
    /// The engine does not answer or refuses, or the name is somebody else's.
    pub async fn start(&self, session: SessionId, workspace: &Workspace) -> Result<SocketAddr, EngineError> {
        let name = self.instance.container();
        if self.has_own().await? {
            self.remove_container(name).await?;
        }
        let body = request::container(&self.settings, &self.dns, &self.instance, session, workspace);
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), body).await.map_err(refused("create the container"))?;
        let started = self.docker.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| match no_gpu(&error) {
            true => EngineError::NoGpu(error),
            false => EngineError::Refused("start the container", error),
        })?;
        self.say_who_runs().await;
        self.published().await
    }

    /// Whether the container runs.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn is_running(&self) -> Result<bool, EngineError> {
        match self.docker.inspect_container(self.instance.container(), None::<InspectContainerOptions>).await {
            Ok(container) => Ok(container.state.and_then(|state| state.running).unwrap_or(false)),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(EngineError::Refused("inspect the container", error)),
        }
    }

    /// Stops the container: it may end by itself for a while, and is killed then. One that does not run is fine.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn stop(&self) -> Result<(), EngineError> {
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        unless_gone(self.docker.stop_container(self.instance.container(), Some(options)).await)
            .map_err(refused("stop the container"))
    }

    async fn published(&self) -> Result<SocketAddr, EngineError> {
        let container = self.docker.inspect_container(self.instance.container(), None::<InspectContainerOptions>).await;
        let container = container.map_err(refused("inspect the container"))?;
        let ports = container.network_settings.and_then(|network| network.ports).unwrap_or_default();
        let bindings = ports.get(request::PORT).cloned().flatten().unwrap_or_default();
        bindings
            .iter()
            .filter_map(|binding| {
                let ip = binding.host_ip.as_deref()?.parse::<std::net::IpAddr>().ok()?;
                let port = binding.host_port.as_deref()?.parse().ok()?;
                ip.is_loopback().then(|| SocketAddr::new(ip, port))
            })
            .next()
            .ok_or(EngineError::NotPublished)
    }

    /// Whether there is a container of our name; an error if it is not ours.
    async fn has_own(&self) -> Result<bool, EngineError> {
        let name = self.instance.container();
        match self.docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(EngineError::Refused("inspect the container", error)),
            Ok(found) => {
                let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
                let ours = labels.get(INSTANCE_LABEL).map(String::as_str) == Some(self.instance.label());
                if ours { Ok(true) } else { Err(EngineError::NameTaken(name.to_owned())) }
            }
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        unless_gone(self.docker.remove_container(id, Some(options)).await).map_err(refused("remove a container"))
    }

    fn ours(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{INSTANCE_LABEL}={}", self.instance.label())])])
    }
}

/// The limits that the engine says it cannot enforce.
fn missing_limits(info: &SystemInfo) -> Vec<&'static str> {
    [
        ("a memory limit", info.memory_limit),
        ("a limit of memory and swap", info.swap_limit),
        ("a limit of processes", info.pids_limit),
        ("a processor quota", info.cpu_cfs_quota),
    ]
    .into_iter()
    .filter(|(_, enforced)| *enforced == Some(false))
    .map(|(limit, _)| limit)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_limits_is_refused_by_name_of_the_limit() {
        let able = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(true),
            ..Default::default()
        };
        assert!(missing_limits(&able).is_empty());
        let unable = SystemInfo { swap_limit: Some(false), pids_limit: Some(false), ..able };
        let text = EngineError::Unlimited(missing_limits(&unable)).to_string();
        assert!(text.contains("a limit of memory and swap, a limit of processes"), "{text}");
    }
}
