"""Simulates hosts on this machine: network namespaces, each with a virtual cable to the namespace of the callers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace that stands for a host."""

    name: str
    address: str
    """The IPv4 address at which callers reach the host. Nobody needs the address of the callers' host."""

    @property
    def within(self) -> tuple[str, ...]:
        """The first words of a command that runs the remaining words on this host."""
        return ("ip", "netns", "exec", self.name)


@contextmanager
def start_hosts(count: int) -> Iterator[tuple[Host, list[Host]]]:
    """Creates a host for callers and `count` hosts for servers, and deletes them at the end of the block.

    Skips the test if this machine does not allow that.
    """
    prefix = f"doherty-{os.getpid()}"
    callers = Host(f"{prefix}-callers", "127.0.0.1")
    servers = [Host(f"{prefix}-{number}", f"10.99.{number}.2") for number in range(1, count + 1)]
    if shutil.which("ip") is None:
        pytest.skip("NO ROLLING DEPLOY WAS TESTED: the command `ip` (iproute2) is missing")
    with ExitStack() as stack:
        for host in (callers, *servers):
            try:
                _ip("netns", "add", host.name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"NO ROLLING DEPLOY WAS TESTED: cannot create a network namespace: {error.stderr.strip()}")
            stack.callback(_ip, "netns", "delete", host.name)
            _ip("-netns", host.name, "link", "set", "lo", "up")
        for number, server in enumerate(servers, 1):
            _connect(callers, f"eth{number}", f"10.99.{number}.1", server)
        yield callers, servers


def _connect(callers: Host, interface: str, address: str, server: Host) -> None:
    """Connects two hosts with a virtual cable."""
    peer = ("peer", "name", "eth0", "netns", server.name)
    _ip("-netns", callers.name, "link", "add", interface, "type", "veth", *peer)
    for host, end, own in ((callers, interface, address), (server, "eth0", server.address)):
        _ip("-netns", host.name, "address", "add", f"{own}/30", "dev", end)
        _ip("-netns", host.name, "link", "set", end, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True, text=True)
