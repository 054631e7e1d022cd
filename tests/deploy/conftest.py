"""A simulated Modal cloud, an account in it, and a machine that runs containers."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Authority
from support.modal_cloud import Cloud, run_cloud
from support.modal_container import Machine
from support.proxy import proxy
from support.security import add_key


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with run_cloud() as running:
        yield running
        assert running.refused == []


@pytest.fixture
def machine(cloud: Cloud, tmp_path: Path) -> Machine:
    return Machine(cloud, tmp_path)


@pytest.fixture
def key(machine: Machine) -> str:
    """Returns a key that is in the Volume of the account."""
    machine.keys.mkdir()
    return add_key(machine.keys / "keys.json", "me")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.renew("tunnel")
    return authority


@pytest.fixture
def tunnel(cloud: Cloud, machine: Machine, authority: Authority) -> Iterator[str]:
    """Returns the address of the next tunnel, which uses TLS."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.chain, authority.key)
    tls.set_alpn_protocols(["h2"])
    with proxy(machine.target, tls) as opened:
        cloud.tunnel = ("localhost", int(opened.target.rpartition(":")[2]))
        yield "{}:{}".format(*cloud.tunnel)
