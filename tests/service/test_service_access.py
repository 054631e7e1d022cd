"""Access to health, reflection, channelz and load reports: open, keyed or off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from doherty import Client
from foreign.clients import SCRIPTS, output
from support.security import add_key, bearer
from support.server import start_server
from support.transports import TRANSPORT
from support.wire import SECONDS, failure_of

SYNTHETIC = ("--engine", "synthetic")
EVERYWHERE = {"doherty.v1.GenerationService", "doherty.v1.LatencyService"}
OK, UNAUTHENTICATED, UNIMPLEMENTED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Returns the path of a file of keys, and the key that it contains."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return str(path), add_key(path, "tools")


OPEN_CHANNELZ = {"channelz": OK if TRANSPORT == "grpcio" else UNIMPLEMENTED}

LIST_SERVICES = b"\x3a\x00"
"""A serialized ServerReflectionRequest."""

METHODS = {
    "health": ("/grpc.health.v1.Health/Check", b""),
    "watch": ("/grpc.health.v1.Health/Watch", b""),
    "channelz": ("/grpc.channelz.v1.Channelz/GetServers", b""),
    "load": ("/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics", b""),
    "reflection": ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", LIST_SERVICES),
    "old reflection": ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", LIST_SERVICES),
}


def knock(channel: grpc.Channel, *metadata: tuple[str, str]) -> dict[str, grpc.StatusCode]:
    """Returns how a call of each of these services ends."""
    return {door: _knock(channel, *METHODS[door], metadata) for door in METHODS}


def _knock(channel: grpc.Channel, method: str, data: bytes, metadata: Any) -> grpc.StatusCode:
    # On the wire, a unary call is the same as a stream of one message.
    call: Any = channel.stream_stream(method)
    replies = call(iter((data,)), timeout=SECONDS, metadata=metadata)
    try:
        next(replies)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    replies.cancel()
    return OK


@contextmanager
def server_with(*flags: str) -> Iterator[grpc.Channel]:
    with start_server(*SYNTHETIC, *flags) as server, grpc.insecure_channel(server.target) as channel:
        yield channel


def test_without_keys_every_service_is_open() -> None:
    with server_with() as channel:
        assert knock(channel) == dict.fromkeys(METHODS, OK) | OPEN_CHANNELZ


def test_with_keys_only_health_is_open(keys: tuple[str, str]) -> None:
    with server_with("--keys-file", keys[0]) as channel:
        assert knock(channel) == dict.fromkeys(METHODS, UNAUTHENTICATED) | {"health": OK, "watch": OK}
        assert knock(channel, *bearer(keys[1])) == dict.fromkeys(METHODS, OK) | OPEN_CHANNELZ


def test_each_service_has_an_access_setting(keys: tuple[str, str]) -> None:
    flags = ("--health", "keyed", "--reflection", "open", "--load-reports", "open", "--channelz", "off")
    with server_with("--keys-file", keys[0], *flags) as channel:
        # Callers without a key do not learn that channelz is off.
        opened = dict.fromkeys(("reflection", "old reflection", "load"), OK) | {"watch": UNIMPLEMENTED}
        assert knock(channel) == dict.fromkeys(METHODS, UNAUTHENTICATED) | opened
        assert knock(channel, *bearer("dh_1_2")) == dict.fromkeys(METHODS, UNAUTHENTICATED) | opened | {
            "watch": UNAUTHENTICATED
        }
        assert knock(channel, *bearer(keys[1])) == dict.fromkeys(METHODS, OK) | {"channelz": UNIMPLEMENTED}


@pytest.mark.parametrize("health", ["keyed", "off"])
def test_clients_that_watch_the_health_without_a_key_can_make_calls(keys: tuple[str, str], health: str) -> None:
    with (
        start_server(*SYNTHETIC, "--keys-file", keys[0], "--health", health) as server,
        # A name with two addresses. gRPC uses the healthy ones in turn.
        Client([f"ipv4:127.0.0.1:1,{server.target}"], api_key=keys[1]) as client,
    ):
        assert client.generate("a").text


def test_all_services_can_be_off() -> None:
    with server_with("--health", "off", "--reflection", "off", "--channelz", "off", "--load-reports", "off") as channel:
        assert knock(channel) == dict.fromkeys(METHODS, UNIMPLEMENTED)


def test_an_unknown_method_needs_a_key(keys: tuple[str, str]) -> None:
    with server_with("--keys-file", keys[0]) as channel:
        call: Any = channel.unary_unary("/doherty.v1.GenerationService/NoSuchMethod")
        assert failure_of(lambda: call(b"", timeout=SECONDS)).code is UNAUTHENTICATED


def test_reflection_lists_the_available_services() -> None:
    with start_server(*SYNTHETIC, "--channelz", "off") as server:
        listed = set(output(SCRIPTS / "grpcurl", "-plaintext", server.target, "list").split())
    assert listed == EVERYWHERE | {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_grpcurl_can_send_a_key(keys: tuple[str, str]) -> None:
    with start_server(*SYNTHETIC, "--keys-file", keys[0]) as server:
        header = f"authorization: Bearer {keys[1]}"
        call = ("-plaintext", "-H", header, "-d", '{"prompt": "a"}', server.target)
        assert '"text"' in output(SCRIPTS / "grpcurl", *call, "doherty.v1.GenerationService/Generate")
