"""Network namespaces of a test's own: a world, which the test itself enters, and machines in it with two links each.

    world      127.0.0.1 · renters 10.3.0.1 and up · provider 10.3.1.1
      │ 10.2.N.1/30  renters' link                         10.1.N.1/30  the database's link │
    machine N  10.2.N.2                                                            10.1.N.2

The namespace of the test's main thread is the world's while it is entered, and so is that of all threads and programs that it
starts. No packet leaves the two.
"""

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNET = 0x40000000
RENTERS = [f"10.3.0.{number}" for number in range(1, 9)]
PROVIDER = "10.3.1.1"

libc = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    done = subprocess.run(
        ["ip", *" ".join(words).split()], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def move_into(namespace):
    with Path(namespace).open() as file:
        assert libc.setns(file.fileno(), CLONE_NEWNET) == 0, os.strerror(
            ctypes.get_errno()
        )


class Machine:
    """A node's host."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.name = f"{world.name}-{number}"
        self.address = f"10.2.{number}.2"
        self.database = f"10.1.{number}.1"
        # What makes a program start on it.
        self.inside = ["ip", "netns", "exec", self.name]
        ip("netns add", self.name)
        ip("-n", self.name, "link set lo up")
        for link, network in [("r", "10.2"), ("d", "10.1")]:
            near, far = f"{link}{number}", f"{link}{number}far"
            ip("-n", world.name, f"link add {near} type veth peer name {far}")
            ip("-n", world.name, f"link set {far} netns {self.name}")
            ip("-n", world.name, f"addr add {network}.{number}.1/30 dev {near}")
            ip("-n", world.name, f"link set {near} up")
            ip("-n", self.name, f"addr add {network}.{number}.2/30 dev {far}")
            ip("-n", self.name, f"link set {far} up")
        ip("-n", self.name, f"route add default via 10.2.{number}.1")

    def cut_off(self):
        """Nothing passes between it and the database any more; neither side is told."""
        ip("-n", self.world.name, f"link set d{self.number} down")

    def join(self):
        ip("-n", self.world.name, f"link set d{self.number} up")


class World:
    def __init__(self, machines):
        self.name = f"runit-e2e-{os.getpid()}"
        self.home = None
        self.machines = []
        ip("netns add", self.name)
        try:
            ip("-n", self.name, "link set lo up")
            for address in [*RENTERS, PROVIDER]:
                ip("-n", self.name, f"addr add {address}/32 dev lo")
            for number in range(1, machines + 1):
                self.machines.append(Machine(self, number))
        except BaseException:
            self.remove()
            raise

    def __enter__(self):
        self.home = f"/proc/{os.getpid()}/fd/{os.open('/proc/self/ns/net', os.O_RDONLY)}"
        move_into(f"/run/netns/{self.name}")
        return self

    def __exit__(self, *_):
        move_into(self.home)
        os.close(int(self.home.rsplit("/", 1)[1]))
        self.remove()

    def remove(self):
        for name in [*(machine.name for machine in self.machines), self.name]:
            subprocess.run(["ip", "netns", "del", name], check=False)
