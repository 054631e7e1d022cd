"""TLS, mTLS and certificates that change while the server runs."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from doherty.v1 import generation_service_pb2_grpc, model_pb2
from support.certificates import Authority
from support.command import run_doherty
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 20, "ignore_eos": True}}
SYNTHETIC = ("--engine", "synthetic")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.renew("first")
    return authority


@contextmanager
def open_channel(target: str, authority: Authority, shows: tuple[bytes, bytes] | None = None) -> Iterator[grpc.Channel]:
    """Opens a separate connection; `shows` is the certificate and the key of the client."""
    chain, key = shows or (None, None)
    credentials = grpc.ssl_channel_credentials(authority.roots, key, chain)
    with grpc.secure_channel(target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


@contextmanager
def connect_securely(target: str, authority: Authority, shows: tuple[bytes, bytes] | None = None) -> Iterator[Caller]:
    """Opens a caller with a separate connection."""
    with open_channel(target, authority, shows) as channel:
        yield Caller(channel)


def is_let_in(channel: grpc.Channel) -> bool:
    """Whether the connection is established."""
    stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
    call = stub.GetModel.future(model_pb2.GetModelRequest(), timeout=SECONDS)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return call.code() is grpc.StatusCode.OK


def name_shown(target: str) -> str:
    """Returns the common name of the certificate that a new connection receives."""
    host, port = target.rsplit(":", 1)
    pem = ssl.get_server_certificate((host, int(port)), timeout=SECONDS)
    (name,) = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 address."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def logged(server: ServerProcess, event: str) -> int:
    """Ends the server, and returns how often it logged the event."""
    server.process.terminate()
    server.wait_for("stopped")
    return sum(line["event"] == event for line in server.log)


def test_calls_go_over_tls_and_plaintext_does_not(authority: Authority) -> None:
    with start_server(*SYNTHETIC, *authority.flags) as server:
        with connect_securely(server.target, authority) as caller:
            assert caller.generate(**SHORT).summary.usage.output_tokens == 20
            assert len(caller.stream(**SHORT)) > 1
        with grpc.insecure_channel(server.target) as channel:
            assert not is_let_in(channel)


def test_tls_may_listen_for_other_machines_without_insecure(authority: Authority) -> None:
    with start_server(*SYNTHETIC, *authority.flags, "--listen", "0.0.0.0:0") as server:
        target = server.target.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - quotes the server
        with connect_securely(target, authority) as caller:
            caller.generate(**SHORT)
        if has_ipv6():
            assert name_shown(server.target.replace("0.0.0.0", "::1")) == "first"  # noqa: S104


def test_mtls_requires_a_client_certificate_of_the_authority(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    with start_server(*SYNTHETIC, *authority.flags, "--tls-client-ca", str(authority.roots_file)) as server:
        with connect_securely(server.target, authority, shows=authority.issue()) as caller:
            caller.generate(**SHORT)
        for shows in (None, stranger.issue()):
            with open_channel(server.target, authority, shows) as channel:
                assert not is_let_in(channel)


@pytest.mark.parametrize("wrong", ["absent", "empty", "mismatched", "half", "ca", "alone", "ca alone"])
def test_an_invalid_certificate_is_reported_in_one_sentence(authority: Authority, tmp_path: Path, wrong: str) -> None:
    flags = [*authority.flags]
    match wrong:
        case "absent":
            authority.chain.unlink()
        case "empty":
            authority.key.write_text("")
        case "mismatched":
            authority.key.write_bytes(authority.issue()[1])
        case "half":
            authority.chain.write_bytes(authority.chain.read_bytes()[:200])
        case "ca":
            (tmp_path / "bad-ca").write_text("no certificate")
            flags += ["--tls-client-ca", str(tmp_path / "bad-ca")]
        case "alone":
            flags = flags[:2]
        case _:
            flags = ["--tls-client-ca", str(authority.roots_file)]
    ended = run_doherty("serve", *SYNTHETIC, "--listen", "127.0.0.1:0", *flags)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert [line.startswith("{") for line in ended.stderr.splitlines()].count(False) == 1


def test_new_connections_get_a_new_certificate(authority: Authority) -> None:
    with start_server(*SYNTHETIC, *authority.flags) as server, connect_securely(server.target, authority) as caller:
        assert name_shown(server.target) == "first"
        authority.renew("second")
        assert name_shown(server.target) == "second"
        caller.generate(**SHORT)  # on the old connection
        assert logged(server, "certificate_read") == 1


def test_a_broken_certificate_keeps_the_old_one_and_is_logged_once(authority: Authority) -> None:
    with start_server(*SYNTHETIC, *authority.flags) as server:
        authority.chain.write_bytes(authority.chain.read_bytes()[:200])
        assert [name_shown(server.target) for _ in range(3)] == ["first"] * 3
        chain, key = authority.issue("second")
        authority.chain.write_bytes(chain)  # whose key does not exist yet
        assert [name_shown(server.target) for _ in range(3)] == ["first"] * 3
        authority.key.write_bytes(key)
        assert name_shown(server.target) == "second"
        assert logged(server, "certificate_not_read") == 2


def test_rotation_under_load_fails_no_call(authority: Authority) -> None:
    rotations = 20
    done = threading.Event()
    calls: list[int] = []

    def call_all_the_time(number: int) -> None:
        while not done.is_set():
            with connect_securely(server.target, authority) as caller:  # a new connection each time
                answer = caller.generate(**SHORT) if number % 2 else caller.stream(**SHORT)[-1]
                assert answer.summary.usage.output_tokens == 20
                calls.append(number)

    def stream_all_the_time(caller: Caller) -> None:
        while not done.is_set():
            assert caller.stream(**SHORT)[-1].HasField("summary")
            calls.append(0)

    with (
        start_server(*SYNTHETIC, "-o", "tokens_per_second=200", *authority.flags) as server,
        connect_securely(server.target, authority) as lasting,
        ThreadPoolExecutor(12) as pool,
    ):
        working = [pool.submit(call_all_the_time, number) for number in range(8)]
        working += [pool.submit(stream_all_the_time, lasting) for _ in range(4)]
        try:
            rotation = 0
            while rotation < rotations or len(calls) <= rotations:
                authority.renew(f"rotation-{rotation}")
                assert name_shown(server.target) == f"rotation-{rotation}"
                rotation += 1
        finally:
            done.set()
        for client in working:
            client.result()
