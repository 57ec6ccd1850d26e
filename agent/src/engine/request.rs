//! The request that creates the container: everything that keeps a renter's code in its box. Pure.
//!
//! The golden test below fixes it as a whole: a change here is a change of the sandbox, and wants to be seen as one.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use runit_core::SessionId;

use super::Workspace;
use crate::instance::Instance;

/// Jupyter's port inside the container.
pub(super) const PORT: &str = "8888/tcp";

/// Label on everything that an agent makes; its value says which agent.
pub const INSTANCE_LABEL: &str = "io.runit.instance";

/// `jupyteruser`, by number: no file of the image decides who runs.
const USER: &str = "1000:1000";
const TMP: &str = "rw,noexec,nosuid,nodev,size=512m,mode=1777";

/// The path that Jupyter serves a session under, with a slash at both ends.
pub fn base_path(session: SessionId) -> String {
    format!("/s/{session}/")
}

/// What the engine is asked for.
///
/// No added or kept capability, no way to gain one, a read-only root with `/tmp` and the volume as the only places to
/// write, no mount of the host, no device, a network of its own, the engine's default seccomp profile. The image brings its own init (tini).
pub(super) fn container(
    settings: &runit_config::Container,
    dns: &[IpAddr],
    instance: &Instance,
    session: SessionId,
    workspace: &Workspace,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(settings.image.clone()),
        user: Some(USER.to_owned()),
        hostname: Some("runit".to_owned()),
        env: Some(vec![
            format!("RUNIT_JUPYTER_TOKEN={}", workspace.jupyter_token.expose()),
            format!("RUNIT_BASE_URL={}", base_path(session)),
        ]),
        exposed_ports: Some(vec![PORT.to_owned()]),
        labels: Some(labels(instance.label())),
        host_config: Some(host(settings, dns, instance, workspace)),
        ..Default::default()
    }
}

/// Labels of containers and volumes.
pub(super) fn labels(instance: &str) -> HashMap<String, String> {
    HashMap::from([(INSTANCE_LABEL.to_owned(), instance.to_owned())])
}

fn host(settings: &runit_config::Container, dns: &[IpAddr], instance: &Instance, workspace: &Workspace) -> HostConfig {
    HostConfig {
        mounts: Some(vec![Mount {
            target: Some("/workspace".to_owned()),
            source: Some(workspace.volume.clone()),
            typ: Some(MountType::VOLUME),
            ..Default::default()
        }]),
        network_mode: Some(instance.network()),
        dns: (!dns.is_empty()).then(|| dns.iter().map(IpAddr::to_string).collect()),
        port_bindings: Some(HashMap::from([(
            PORT.to_owned(),
            Some(vec![PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) }]),
        )])),
        device_requests: gpus(&settings.gpus),
        ..confined(settings)
    }
}

/// What keeps any container of ours in its bounds.
pub(super) fn confined(settings: &runit_config::Container) -> HostConfig {
    let memory_bytes = i64::try_from(settings.memory_bytes).unwrap_or(i64::MAX);
    HostConfig {
        memory: Some(memory_bytes),
        // Memory and swap together: equal means no swap.
        memory_swap: Some(memory_bytes),
        nano_cpus: Some(nano_cpus(settings.cpus)),
        pids_limit: Some(i64::try_from(settings.pids).unwrap_or(i64::MAX)),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(Vec::new()),
        privileged: Some(false),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP.to_owned())])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "1m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ipc_mode: Some("private".to_owned()),
        init: Some(false),
        ..Default::default()
    }
}

/// The NVIDIA toolkit's hook gives the container these devices, and no other.
fn gpus(wanted: &[String]) -> Option<Vec<DeviceRequest>> {
    let (count, ids) = match wanted {
        [] => return None,
        [all] if all == "all" => (Some(-1), None),
        ids => (None, Some(ids.to_vec())),
    };
    Some(vec![DeviceRequest {
        driver: Some("nvidia".to_owned()),
        count,
        device_ids: ids,
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..Default::default()
    }])
}

/// Cores in billionths. Settings were checked to be 0.1 to 1,024; a cast from a float saturates.
fn nano_cpus(cores: f64) -> i64 {
    (cores * 1e9).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use runit_core::Secret;
    use std::path::Path;

    fn created() -> serde_json::Value {
        serde_json::to_value(created_with(&runit_config::Container::default())).expect("JSON")
    }

    fn created_with(settings: &runit_config::Container) -> ContainerCreateBody {
        let session: SessionId = "6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11".parse().expect("an id");
        let workspace = Workspace {
            volume: "runit-session-0011aabb".to_owned(),
            gate_secret: Secret::new("gate-secret"),
            jupyter_token: Secret::new("jupyter-token"),
        };
        let instance = Instance::new(Path::new("/var/lib/runit-agent"), Some("runit-session"));
        container(settings, &[], &instance, session, &workspace)
    }

    #[test]
    fn the_sandbox_is_exactly_this() {
        let golden = serde_json::json!({
            "Image": "runit-jupyter",
            "User": "1000:1000",
            "Hostname": "runit",
            "Env": [
                "RUNIT_JUPYTER_TOKEN=jupyter-token",
                "RUNIT_BASE_URL=/s/6f1c2a7e-0d54-4d0c-9a58-0f3c5b9f4e11/",
            ],
            "ExposedPorts": { "8888/tcp": {} },
            "Labels": { "io.runit.instance": "/var/lib/runit-agent" },
            "HostConfig": {
                "Memory": 4_294_967_296_u64,
                "MemorySwap": 4_294_967_296_u64,
                "NanoCpus": 2_000_000_000_u64,
                "PidsLimit": 100,
                "CapAdd": [],
                "CapDrop": ["ALL"],
                "Privileged": false,
                "SecurityOpt": ["no-new-privileges:true"],
                "ReadonlyRootfs": true,
                "Tmpfs": { "/tmp": "rw,noexec,nosuid,nodev,size=512m,mode=1777" },
                "Mounts": [{ "Type": "volume", "Source": "runit-session-0011aabb", "Target": "/workspace" }],
                "NetworkMode": "runit-session-net",
                "PortBindings": { "8888/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] },
                "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m", "max-file": "2" } },
                "RestartPolicy": { "Name": "no" },
                "IpcMode": "private",
                "Init": false,
            },
        });
        assert_eq!(created(), golden);
    }

    #[test]
    fn gpus_are_asked_for_by_device_requests_and_otherwise_nothing_changes() {
        let with = |gpus: &[&str]| {
            let gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
            let settings = runit_config::Container { gpus, ..Default::default() };
            serde_json::to_value(created_with(&settings)).expect("JSON")
        };
        let mut all = with(&["all"]);
        let asked = serde_json::json!([{ "Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]] }]);
        assert_eq!(all["HostConfig"].as_object_mut().and_then(|host| host.remove("DeviceRequests")), Some(asked));
        assert_eq!(all, created());
        let asked =
            serde_json::json!([{ "Driver": "nvidia", "DeviceIDs": ["0", "GPU-aa"], "Capabilities": [["gpu"]] }]);
        assert_eq!(with(&["0", "GPU-aa"])["HostConfig"]["DeviceRequests"], asked);
    }

    #[test]
    fn the_gates_secret_never_enters_the_container() {
        assert!(!created().to_string().contains("gate-secret"));
    }

    #[test]
    fn fractions_of_a_core_are_kept() {
        assert_eq!(nano_cpus(0.1), 100_000_000);
        assert_eq!(nano_cpus(1.5), 1_500_000_000);
    }
}
