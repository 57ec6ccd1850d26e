//! A network of the test's own: *the machine*, in whose namespace the test's thread and all that it starts live, and
//! *the world* beyond it, which owns whatever addresses the test gives it. No packet leaves the two.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What every listener in the world and on the machine takes connections at.
pub(crate) const PORT: u16 = 80;

/// A network namespace, removed with the value.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn add(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("runit-{what}-{}-{count}", std::process::id()) };
        run("ip", &["netns", "add", &namespace.name]);
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip` in this namespace.
    pub(crate) fn ip(&self, command: &str) {
        let words = ["-n", self.name.as_str()].into_iter().chain(command.split(' ')).collect::<Vec<_>>();
        run("ip", &words);
    }

    /// Moves this thread here, and with it whatever it starts.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("moved (this needs root)");
    }

    /// Runs `work` on a thread that is here.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter();
                work()
            });
            worker.join().expect("no panic")
        })
    }

    /// A listener that takes connections as long as it lives.
    pub(crate) fn listen(&self, address: IpAddr) -> TcpListener {
        self.inside(|| TcpListener::bind(SocketAddr::new(address, PORT)).expect("an address of this namespace"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// The machine and the world, joined by a cable.
pub(crate) struct World {
    pub(crate) machine: Namespace,
    pub(crate) beyond: Namespace,
    listeners: Vec<TcpListener>,
}

impl World {
    /// Makes both, with `addresses` in the world, and moves the test's thread to the machine.
    pub(crate) fn enter(addresses: &[IpAddr]) -> Self {
        let (machine, beyond) = (Namespace::add("machine"), Namespace::add("world"));
        run(
            "ip",
            &[
                "-n",
                &machine.name,
                "link",
                "add",
                "cable",
                "type",
                "veth",
                "peer",
                "name",
                "cable",
                "netns",
                &beyond.name,
            ],
        );
        for (namespace, host) in [(&machine, 1), (&beyond, 2)] {
            namespace.ip(&format!("addr add 5.5.5.{host}/24 dev cable"));
            namespace.ip(&format!("addr add 2a00:5::{host}/64 dev cable nodad"));
            namespace.ip("link set cable up");
        }
        machine.ip("route add default via 5.5.5.2");
        machine.ip("-6 route add default via 2a00:5::2");
        beyond.ip("route add default via 5.5.5.1");
        beyond.ip("-6 route add default via 2a00:5::1");
        machine.enter();
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("a switch of this namespace");
        }
        let mut world = Self { machine, beyond, listeners: Vec::new() };
        for &address in addresses {
            let nodad = if address.is_ipv6() { " nodad" } else { "" };
            world.beyond.ip(&format!("addr add {address} dev lo{nodad}"));
            world.listeners.push(world.beyond.listen(address));
        }
        world
    }

    /// A service of the machine, on all of its addresses.
    pub(crate) fn serve_on_the_machine(&mut self) {
        self.listeners.push(self.machine.listen(Ipv6Addr::UNSPECIFIED.into()));
    }
}

/// Runs a program that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
