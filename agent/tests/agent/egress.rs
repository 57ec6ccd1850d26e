//! The rules in a real kernel, between namespaces of the test's own: who can be reached from behind the bridge, without
//! them and with them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use runit_agent::egress::ruleset::Flow;
use runit_agent::egress::{EgressError, Firewall};
use runit_agent::instance::Instance;
use runit_config::{Egress, EgressMode};

use crate::support::world::{Namespace, PORT, World, run};

const PUBLIC: [&str; 3] = ["1.2.3.4", "9.9.9.9", "2606:4700::1111"];
const DENIED: [&str; 12] = [
    "10.11.12.13",
    "100.64.0.1",
    "169.254.169.254",
    "172.31.0.1",
    "192.0.2.7",
    "192.168.7.7",
    "198.18.0.1",
    "203.0.113.1",
    "fd00::7",
    "fd00:ec2::254",
    "64:ff9b::a00:1",
    "2001:db8::1",
];
/// Of the machine itself: on its cable, and on the bridge.
const MACHINES: [&str; 3] = ["5.5.5.1", "2a00:5::1", "172.29.0.1"];
const EXCEPTION: &str = "10.11.12.13";

/// A machine with a bridge, and one behind it whom nobody protects but the rules.
struct Bridge {
    world: World,
    inmate: Namespace,
    instance: Instance,
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

impl Bridge {
    fn new() -> Self {
        let mut world = World::enter(&addresses(&[&PUBLIC[..], &DENIED].concat()));
        world.serve_on_the_machine();
        let instance = Instance::new(Path::new("/nowhere"), None);
        let (bridge, inmate) = (instance.bridge(), Namespace::add("inmate"));
        let machine = &world.machine;
        machine.ip(&format!("link add {bridge} type bridge"));
        machine.ip("link add port type veth peer name eth0");
        machine.ip(&format!("link set eth0 netns {}", inmate.name()));
        machine.ip(&format!("link set port master {bridge} up"));
        machine.ip(&format!("link set {bridge} up"));
        machine.ip(&format!("addr add 172.29.0.1/24 dev {bridge}"));
        machine.ip(&format!("addr add 2a00:29::1/64 dev {bridge} nodad"));
        inmate.ip("addr add 172.29.0.2/24 dev eth0");
        inmate.ip("addr add 2a00:29::2/64 dev eth0 nodad");
        inmate.ip("link set eth0 up");
        inmate.ip("route add default via 172.29.0.1");
        inmate.ip("-6 route add default via 2a00:29::1");
        Self { world, inmate, instance }
    }

    fn firewall(&self, settings: &Egress) -> Firewall {
        Firewall::new(settings, &self.instance)
    }

    /// Who of `addresses` can be reached from behind the bridge; who cannot says so at once.
    fn reachable<'a>(&self, addresses: &[&'a str]) -> Vec<&'a str> {
        let reaches = |text: &str| {
            let address = SocketAddr::new(text.parse().expect("an address"), PORT);
            match TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
                Ok(_) => true,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::TimedOut, "{text} was dropped in silence");
                    false
                }
            }
        };
        self.inmate.inside(|| addresses.iter().copied().filter(|text| reaches(text)).collect())
    }
}

#[tokio::test]
async fn without_rules_everybody_is_reached_and_with_them_only_the_public() {
    let bridge = Bridge::new();
    let everybody = [&PUBLIC[..], &DENIED, &MACHINES].concat();
    assert_eq!(bridge.reachable(&everybody), everybody, "the stand-ins do not work");

    let firewall = bridge.firewall(&Egress::default());
    firewall.set(Flow::Open).await.expect("set");
    assert_eq!(bridge.reachable(&everybody), PUBLIC);

    firewall.set(Flow::Cut).await.expect("set");
    assert_eq!(bridge.reachable(&everybody), [""; 0]);

    firewall.remove().await.expect("removed");
    assert_eq!(bridge.reachable(&everybody), everybody);
}

#[tokio::test]
async fn exceptions_are_reached_and_nothing_beside_them() {
    let bridge = Bridge::new();
    let exceptions = ["10.11.12.13/32", "fd00:ec2::/32", "172.29.0.1/32"].map(|net| net.parse().expect("a network"));
    let firewall = bridge.firewall(&Egress { exceptions: exceptions.into(), ..Egress::default() });
    firewall.set(Flow::Open).await.expect("set");
    assert_eq!(bridge.reachable(&DENIED), [EXCEPTION, "fd00:ec2::254"]);
    assert_eq!(bridge.reachable(&MACHINES), ["172.29.0.1"]);
}

#[tokio::test]
async fn only_port_53_of_a_name_server_is_reached() {
    let bridge = Bridge::new();
    let name_server: IpAddr = "192.168.7.7".parse().expect("an address");
    let firewall = bridge.firewall(&Egress { dns: vec![name_server], ..Egress::default() });
    firewall.set(Flow::Open).await.expect("set");
    let listens = |port| bridge.world.beyond.inside(|| std::net::TcpListener::bind((name_server, port)).expect("free"));
    let _both = (listens(53), listens(853));
    let reaches = |port| bridge.inmate.inside(|| TcpStream::connect((name_server, port)).is_ok());
    assert!(reaches(53));
    assert!(!reaches(853) && !reaches(PORT));
}

#[tokio::test]
async fn the_machine_reaches_the_container_and_the_network_beyond_does_not() {
    let bridge = Bridge::new();
    let _jupyter = bridge.inmate.listen("172.29.0.2".parse().expect("an address"));
    let reaches = || TcpStream::connect_timeout(&"172.29.0.2:80".parse().expect("an address"), Duration::from_secs(3));
    let from_beyond = || bridge.world.beyond.inside(|| reaches().is_ok());
    assert!(from_beyond(), "the stand-ins do not work");
    let firewall = bridge.firewall(&Egress::default());
    for flow in [Flow::Open, Flow::Cut] {
        firewall.set(flow).await.expect("set");
        assert!(reaches().is_ok(), "{flow:?}");
        assert!(!from_beyond(), "{flow:?}");
    }
}

#[tokio::test]
async fn rules_that_somebody_flushed_or_changed_are_missed_and_set_again() {
    let bridge = Bridge::new();
    let firewall = bridge.firewall(&Egress::default());
    firewall.set(Flow::Open).await.expect("set");
    assert!(firewall.holds().await.expect("looked"));
    let table = bridge.instance.table();
    for change in [&["flush", "ruleset"][..], &["flush", "chain", "inet", &table, "sent_open"]] {
        run("nft", change);
        assert!(!firewall.holds().await.expect("looked"), "{change:?}");
        firewall.set(Flow::Open).await.expect("set");
        assert!(firewall.holds().await.expect("looked"));
    }
    // What a killed run left is replaced, and gone when this one ends.
    bridge.firewall(&Egress::default()).set(Flow::Cut).await.expect("set");
    bridge.firewall(&Egress::default()).remove().await.expect("removed");
    assert_eq!(run("nft", &["list", "tables"]), "");
    firewall.remove().await.expect("nothing is there, which is as good");
}

#[tokio::test]
async fn a_check_leaves_nothing_and_says_what_is_missing() {
    let bridge = Bridge::new();
    bridge.firewall(&Egress::default()).check().await.expect("rules can be set");
    assert_eq!(run("nft", &["list", "tables"]), "");

    let missing = Egress { nft_bin: "/nonexistent/nft".into(), ..Egress::default() };
    let error = bridge.firewall(&missing).check().await.expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/nft") && error.contains("mode = \"unrestricted\""), "{error}");

    let directory = tempfile::tempdir().expect("a directory");
    let powerless = directory.path().join("nft");
    std::fs::write(&powerless, "#!/bin/sh\nexec setpriv --bounding-set=-net_admin --inh-caps=-net_admin nft \"$@\"\n")
        .expect("written");
    std::fs::set_permissions(&powerless, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let error =
        bridge.firewall(&Egress { nft_bin: powerless, ..Egress::default() }).check().await.expect_err("refused");
    assert!(matches!(&error, EgressError::Refused(why) if why.contains("Operation not permitted")), "{error}");

    let unrestricted = Egress { mode: EgressMode::Unrestricted, ..missing };
    let firewall = bridge.firewall(&unrestricted);
    firewall.check().await.expect("nothing is needed");
    firewall.set(Flow::Open).await.expect("nothing is set");
    firewall.remove().await.expect("nothing is removed");
}

#[tokio::test]
async fn a_bridge_that_is_elsewhere_is_noticed() {
    let bridge = Bridge::new();
    bridge.firewall(&Egress::default()).meets_the_bridge().expect("it is here");
    let elsewhere = Firewall::new(&Egress::default(), &Instance::new(Path::new("/elsewhere"), None));
    assert!(matches!(elsewhere.meets_the_bridge(), Err(EgressError::Elsewhere)));
}
