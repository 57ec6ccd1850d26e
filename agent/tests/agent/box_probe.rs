//! What the notebook's user finds in the box, with the real image: asked from inside, in a network where everything that
//! he must not reach is there to be reached.

use std::net::IpAddr;

use crate::support::agent::{Control, Home};
use crate::support::private_engine::PrivateEngine;
use crate::support::world::World;

const PUBLIC: &str = "1.2.3.4";
const PRIVATE: [&str; 4] = ["10.11.12.13", "169.254.169.254", "192.168.7.7", "100.100.100.200"];
/// The machine's address on the cable to the world.
const MACHINE: &str = "5.5.5.1";

fn world() -> World {
    let addresses = PRIVATE.iter().chain([&PUBLIC]).map(|text| text.parse().expect("an address"));
    let mut world = World::enter(&addresses.collect::<Vec<IpAddr>>());
    world.serve_on_the_machine();
    world
}

/// Who of `addresses` can be reached from inside; the container's own gateway, which is the machine too, is `gateway`.
async fn reached(home: &Home, addresses: &[&str]) -> Vec<String> {
    let probe = format!(
        "gateway=$(python3 -c \"import struct,socket; \
           print([socket.inet_ntoa(struct.pack('<L', int(l.split()[2], 16))) for l in open('/proc/net/route') \
           if l.split()[1] == '00000000'][0])\")
         for address in {} gateway; do
           target=$address; [ $address = gateway ] && target=$gateway
           timeout 5 bash -c \"exec 3<>/dev/tcp/$target/80\" 2>/dev/null && echo $address
         done; true",
        addresses.join(" ")
    );
    home.shell(&probe).await.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn without_rules_the_notebook_reaches_everything_and_with_them_the_world_only() {
    let _world = world();
    let engine = PrivateEngine::start().await;
    let everybody = [&PRIVATE[..], &[PUBLIC, MACHINE]].concat();

    for (mode, expected) in [
        ("mode = \"unrestricted\"", [&everybody[..], &["gateway"]].concat()),
        ("", vec![PUBLIC]),
        ("exceptions = [\"10.11.12.0/24\"]", vec!["10.11.12.13", PUBLIC]),
    ] {
        let control = Control::start().await;
        let home = Home::in_engine(&control, &engine, &format!("kind = \"direct\"\n[egress]\n{mode}")).await;
        let _agent = home.start();
        control.nth("POST", 1).await;
        assert_eq!(reached(&home, &everybody).await, expected, "{mode:?}");
    }
}
