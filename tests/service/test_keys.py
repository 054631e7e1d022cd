"""API keys: authentication, permissions, and changes while the server runs."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2, generation_service_pb2_grpc, latency_service_pb2, model_pb2
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub
from doherty_service.security import changing_keys
from support.multiplex import wait_until
from support.security import add_key, bearer, connect_with
from support.server import ServerProcess, start_server
from support.transports import TRANSPORT
from support.wire import SECONDS, failure_of, read_failure, request

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 3}}
ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 6000, "ignore_eos": True}}


class Guarded:
    """A server that requires keys, and its file of keys."""

    def __init__(self, server: ServerProcess, keys: Path) -> None:
        self.server = server
        self.keys = keys
        self.target = server.target

    def add(self, name: str, **limits: Any) -> str:
        return add_key(self.keys, name, **limits)

    def lets_in(self, token: str) -> bool:
        """Whether a call with this key is accepted."""
        with grpc.insecure_channel(self.target) as channel:
            stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
            call = stub.GetModel.future(model_pb2.GetModelRequest(), timeout=SECONDS, metadata=bearer(token))
            error = call.exception()
        assert error is None or read_failure(call).reason == "INVALID_KEY"
        return error is None


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    add_key(keys, "first")
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=200", "--keys-file", str(keys)) as server:
        yield Guarded(server, keys)


def every_rpc(channel: grpc.Channel) -> list[Callable[[Any], Any]]:
    """Returns calls of every method of the contract. Each accepts metadata."""
    generation, latency = generation_service_pb2_grpc.GenerationServiceStub(channel), LatencyServiceStub(channel)
    return [
        lambda metadata: generation.Generate(request(**SHORT), metadata=metadata),
        lambda metadata: list(generation.StreamGenerate(request(**SHORT), metadata=metadata)),
        lambda metadata: generation.CountTokens(
            generation_service_pb2.CountTokensRequest(prompt="a"), metadata=metadata
        ),
        lambda metadata: generation.GetModel(model_pb2.GetModelRequest(), metadata=metadata),
        lambda metadata: latency.GetLatency(latency_service_pb2.GetLatencyRequest(), metadata=metadata),
    ]


def test_every_rpc_needs_a_key(guarded: Guarded) -> None:
    token = guarded.add("every-rpc")
    other_secret = token[:-1] + ("0" if token[-1] != "0" else "1")
    refused: dict[tuple[tuple[str, str], ...], str] = {
        (): "MISSING_KEY",
        (("authorization", "Basic YTpi"),): "MISSING_KEY",
        (("authorization", token),): "MISSING_KEY",
        bearer("dh_0123456789ab_" + "0" * 64): "INVALID_KEY",
        bearer(other_secret): "INVALID_KEY",
        bearer(token.upper()): "INVALID_KEY",
        bearer(token) + bearer(token): "INVALID_KEY",
    }
    if TRANSPORT == "grpcio":  # http2 resets a stream whose metadata end with a space
        refused[("authorization", "Bearer "),] = "INVALID_KEY"
    with grpc.insecure_channel(guarded.target) as channel:
        for call in every_rpc(channel):
            for metadata, reason in refused.items():
                failure = failure_of(lambda call=call, metadata=metadata: call(metadata))
                assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason), metadata
                assert failure.domain == "doherty"
                assert failure.request_id
            call(bearer(token))
            call((("authorization", f"bearer {token}"),))  # the name of an authentication scheme is case-insensitive


def test_messages_of_unknown_callers_are_not_parsed(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.target) as channel:
        call: Any = channel.unary_unary("/doherty.v1.GenerationService/Generate")
        failure = failure_of(lambda: call(b"\xff\xff\xff", timeout=SECONDS))
    assert failure.reason == "MISSING_KEY"


def test_the_log_contains_the_name_of_the_key(guarded: Guarded) -> None:
    with connect_with(guarded.target, guarded.add("in-the-log")) as caller:
        caller.generate(**SHORT, request_id="whose")
    assert guarded.server.wait_for("request", request_id="whose")["key"] == "in-the-log"


def test_keys_are_added_and_revoked_without_a_restart(guarded: Guarded) -> None:
    token, other = guarded.add("short-lived"), guarded.add("longer-lived")
    assert guarded.lets_in(token)
    with changing_keys(guarded.keys) as keys:
        keys[:] = [key for key in keys if key.name != "short-lived"]
    assert not guarded.lets_in(token)
    assert guarded.lets_in(other)


def test_a_broken_file_keeps_the_keys_and_is_logged_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "kept")
    whole = keys.read_text()
    with start_server("--engine", "synthetic", "--keys-file", str(keys)) as server:
        guarded = Guarded(server, keys)
        for broken in (whole[: len(whole) // 2], whole.replace("kept", "k k"), None):
            if broken is None:
                keys.unlink()
            else:
                keys.write_text(broken)
            assert guarded.lets_in(token)
            assert guarded.lets_in(token)
        assert guarded.lets_in(guarded.add("new"))
        assert not guarded.lets_in(token)  # the new file does not contain the key
        server.process.terminate()
        server.wait_for("stopped")
    errors = [str(line["error"]) for line in server.log if line["event"] == "keys_not_read"]
    assert len(errors) == 3


def test_a_file_that_could_not_be_opened_is_read_as_soon_as_it_can_be(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, "revoked")
    with (
        start_server("--engine", "synthetic", "--keys-file", str(keys)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)

        def is_let_in() -> bool:
            """Calls on an existing connection, because there are no file descriptors for a new one."""
            call = stub.GetModel.future(model_pb2.GetModelRequest(), timeout=SECONDS, metadata=bearer(token))
            return call.exception() is None

        assert is_let_in()
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, limits[1]))
        with changing_keys(keys) as kept:
            kept.clear()
        assert [is_let_in() for _ in range(3)] == [True] * 3
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: not is_let_in())  # calls within a millisecond share a check of the file
        server.stop()
        server.log += server.read()
    assert [line["event"] for line in server.log if "keys" in str(line["event"])] == ["keys_not_read", "keys_read"]


def test_a_key_may_be_limited_to_adapters(guarded: Guarded) -> None:
    token = guarded.add("one-adapter", adapters=("mine",))
    with connect_with(guarded.target, token) as caller:
        failure = caller.failure(**SHORT, adapter="another")
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADAPTER_NOT_ALLOWED")
        assert "mine" in failure.message
        assert caller.failure(**SHORT, adapter="mine").code is not grpc.StatusCode.PERMISSION_DENIED
        assert caller.generate(**SHORT).text  # every key may use the model without an adapter


def test_a_key_has_a_maximum_of_concurrent_requests(guarded: Guarded) -> None:
    token = guarded.add("two-at-a-time", max_concurrent=2)
    with connect_with(guarded.target, token) as caller, connect_with(guarded.target, guarded.add("other")) as other:
        held = [caller.stub.StreamGenerate(request(**ENDLESS), timeout=SECONDS) for _ in range(2)]
        for stream in held:
            next(stream)
        count_tokens = generation_service_pb2.CountTokensRequest(prompt="a")
        for failure in (
            caller.failure(**SHORT),
            failure_of(lambda: caller.stub.CountTokens(count_tokens, timeout=SECONDS)),
        ):
            assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")
            assert failure.retry_seconds
        other.generate(**SHORT)
        caller.stub.GetModel(model_pb2.GetModelRequest(), timeout=SECONDS)  # is not limited
        for stream in held:
            stream.cancel()
        other.wait_until(lambda now: now.running == 0)
        caller.generate(**SHORT)


def test_a_key_has_a_maximum_of_requests_per_minute(guarded: Guarded) -> None:
    with connect_with(guarded.target, guarded.add("one-a-minute", per_minute=1)) as caller:
        caller.generate(**SHORT)
        failure = caller.failure(**SHORT)
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "KEY_LIMIT")
    assert failure.retry_seconds is not None
    # The rest of the minute, and a little longer, so that not all callers come back at the same moment.
    assert 40 <= failure.retry_seconds <= 60 * 1.2
