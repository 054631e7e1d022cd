"""deploy/modal_app.py in containers of Modal's own runtime, and the connections to the servers in them."""

import os
import pickle
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from modal_proto.api_pb2 import TUNNEL_TYPE_H2

from doherty import AuthenticationError, Client
from doherty_service.security import changing_keys
from support.certificates import Authority
from support.command import SECONDS, run_doherty
from support.modal_account import APP, account, deploy, modal
from support.modal_cloud import Cloud
from support.modal_container import Machine, children
from support.multiplex import wait_until

FAST = b"\n\x0e\n\x04mode\x10\x01\x1a\x04fast"
"""The parameters of a Tunnel, as Modal sends them to its container."""


def pickled(value: str) -> bytes:
    """Returns a value in the form in which a Dict stores it."""
    return pickle.dumps(value, protocol=4)


def test_the_command_boots_the_tunnel_which_drains_at_the_end(
    cloud: Cloud, machine: Machine, authority: Authority, key: str, tunnel: str
) -> None:
    deploy(cloud)
    # The container reports that it is in use from its first request on, and not after some minutes.
    machine.change("KEPT_SECONDS: Final = 4 * MINUTES", "KEPT_SECONDS: Final = 0")
    with machine.run("Tunnel.*", FAST) as container:
        flags = ("--target", "modal:doherty", "--tls-ca", str(authority.roots_file))
        answered = run_doherty("generate", "Hi", *flags, DOHERTY_API_KEY=key, **account(cloud))
        assert (answered.returncode, answered.stdout != "") == (0, True), answered.stderr + machine.log()
        assert answered.stderr.startswith("waiting for doherty on Modal")
        [opened] = cloud.tunnels
        assert (opened.port, opened.tunnel_type) == (50051, TUNNEL_TYPE_H2)
        assert cloud.entries == {pickled("fast"): pickled(tunnel)}
        assert cloud.committed == ["doherty-trtllm"]
        by_command, by_container = (cloud.called.get(timeout=SECONDS) for _ in range(2))
        assert [by_command] == [by_container] == [*cloud.bound]
        cloud.stop_container()
        assert container.wait(SECONDS) == 0, machine.log()
    assert '"event": "stopped"' in machine.log()
    assert (cloud.entries, cloud.tunnels, cloud.failures) == ({}, [], [])
    assert [command[0] for command in machine.commands()] == ["engine", "serve"]


def test_a_run_asks_ten_questions(cloud: Cloud, machine: Machine, authority: Authority, key: str, tunnel: str) -> None:
    run = ("run", str(APP), "--mode", "slow")
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(authority.roots_file), "DOHERTY_API_KEY": key}
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(modal, cloud, *run, **trusted)
        cloud.called.get(timeout=SECONDS)
        [parameters] = cloud.bound.values()
        with machine.run("Tunnel.*", parameters):
            done = running.result(timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr + machine.log()
    assert f"synthetic at {tunnel}; 10 questions one by one" in done.stdout
    assert re.search(r"^last token \(TTLT\) +\d+\.\d +\d+\.\d$", done.stdout, re.MULTILINE)
    assert [command[-1] for command in machine.commands() if command[0] == "engine"] == ["slow"]


def test_a_run_that_cannot_succeed_starts_no_container(cloud: Cloud) -> None:
    keyless = modal(cloud, "run", str(APP), DOHERTY_API_KEY="")
    assert keyless.returncode == 1
    assert "set DOHERTY_API_KEY" in keyless.stderr
    wrong = modal(cloud, "run", str(APP), "--mode", "quick", DOHERTY_API_KEY="dh_1_2")
    assert wrong.returncode == 1
    assert "There is no mode 'quick'; choose one of fast, slow." in wrong.stderr
    assert cloud.called.empty()


def test_the_server_is_ready_when_it_answers_and_requires_keys(cloud: Cloud, machine: Machine, key: str) -> None:
    deploy(cloud)
    with machine.run("Server", b"") as container:
        assert cloud.ready.wait(SECONDS), machine.log()
        with Client(machine.target, api_key=key) as client:
            assert client.generate("Hi").text
        assert "UNAUTHENTICATED" in run_doherty("generate", "Hi", "--target", machine.target).stderr
        # gRPC watches the health of a name in DNS, which is a call without an end for Modal. It treats a missing
        # service as healthy.
        with Client([f"ipv4:127.0.0.1:1,{machine.target}"], api_key=key) as several:
            assert several.generate("Hi").text
        container.send_signal(signal.SIGTERM)
        assert container.wait(SECONDS) == 0, machine.log()
    assert '"event": "stopped"' in machine.log()
    assert cloud.failures == []


def is_refused(client: Client) -> bool:
    """Whether the key of the client is refused."""
    try:
        client.generate("Hi")
    except AuthenticationError:
        return True
    return False


def test_a_key_that_is_revoked_is_refused_while_the_container_runs(cloud: Cloud, machine: Machine, key: str) -> None:
    deploy(cloud)
    machine.change("KEYS_SECONDS: Final = 30", "KEYS_SECONDS: Final = 1")
    with machine.run("Server", b""):
        assert cloud.ready.wait(SECONDS), machine.log()
        with Client(machine.target, api_key=key) as client:
            assert client.generate("Hi").text
            with changing_keys(machine.keys / "keys.json") as keys:
                keys.clear()
            wait_until(partial(is_refused, client))
        assert cloud.reloaded.get(timeout=SECONDS) == "doherty-keys"
    assert "could not be read" not in machine.log()


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("name", ["Server", "Tunnel.*"])
def test_a_container_whose_engine_cannot_be_prepared_does_not_start(cloud: Cloud, machine: Machine, name: str) -> None:
    deploy(cloud)
    with machine.run(name, FAST if name != "Server" else b"", BROKEN="prepare") as container:
        container.wait(SECONDS)
    assert "The GPU is too small.\n" in machine.log()
    [failure] = cloud.failures
    assert "doherty" in failure
    assert not cloud.ready.is_set()
    assert cloud.tunnels == []


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize(("broken", "code"), [("serve", 2), ("exit", 0)])
def test_a_container_whose_server_does_not_start_ends(cloud: Cloud, machine: Machine, broken: str, code: int) -> None:
    deploy(cloud)
    with machine.run("Server", b"", BROKEN=broken) as container:
        assert container.wait(SECONDS) == (code or 1)
    assert machine.log().endswith(f"doherty serve ended with {code}\n")
    assert not cloud.ready.is_set()


@pytest.mark.usefixtures("key")
def test_a_container_whose_server_dies_ends_too(cloud: Cloud, machine: Machine) -> None:
    deploy(cloud)
    with machine.run("Server", b"") as container:
        assert cloud.ready.wait(SECONDS), machine.log()
        [server] = children(container)
        os.kill(server, signal.SIGKILL)
        assert container.wait(SECONDS) != 0
