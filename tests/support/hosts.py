"""Hosts with a network of their own on this machine: network namespaces, each with a cable to that of the callers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str
    address: str
    """Its IPv4 address, as the callers reach it. The callers themselves have none that others need."""

    @property
    def within(self) -> tuple[str, ...]:
        """The beginning of a command that runs the rest of it on this host."""
        return ("ip", "netns", "exec", self.name)


@contextmanager
def start_hosts(count: int) -> Iterator[tuple[Host, list[Host]]]:
    """Makes a host for callers and `count` hosts for servers, and deletes them at the end of the block.

    Skips the test on a machine where that is not possible.
    """
    prefix = f"doherty-{os.getpid()}"
    callers = Host(f"{prefix}-callers", "127.0.0.1")
    servers = [Host(f"{prefix}-{number}", f"10.99.{number}.2") for number in range(1, count + 1)]
    if shutil.which("ip") is None:
        pytest.skip("NO ROLLING DEPLOY WAS TESTED: there is no command `ip` (iproute2)")
    with ExitStack() as stack:
        for host in (callers, *servers):
            try:
                _ip("netns", "add", host.name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"NO ROLLING DEPLOY WAS TESTED: there can be no network namespace: {error.stderr.strip()}")
            stack.callback(_ip, "netns", "delete", host.name)
            _ip("-netns", host.name, "link", "set", "lo", "up")
        for number, server in enumerate(servers, 1):
            _connect(callers, f"eth{number}", f"10.99.{number}.1", server)
        yield callers, servers


def _connect(callers: Host, interface: str, address: str, server: Host) -> None:
    """Puts a cable between two hosts."""
    peer = ("peer", "name", "eth0", "netns", server.name)
    _ip("-netns", callers.name, "link", "add", interface, "type", "veth", *peer)
    for host, end, own in ((callers, interface, address), (server, "eth0", server.address)):
        _ip("-netns", host.name, "address", "add", f"{own}/30", "dev", end)
        _ip("-netns", host.name, "link", "set", end, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True, text=True)
