"""Every kind of call through every proxy, to two healthy servers."""

from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from proxies.conftest import Fleet
from proxies.running import Running
from support.certificates import Authority
from support.endings import STREAM, UNARY, begin
from support.multiplex import opened, start
from support.wire import SECONDS, Caller, connect, request

ENDLESS: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 100_000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 2, "ignore_eos": True}}
SILENT: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 1600, "ignore_eos": True}}
"""Takes 16 s.

This is longer than the limits for connections without calls (1 s here), and than Envoy's default timeout for a
response (15 s).
"""


@pytest.mark.parametrize("method", [UNARY, STREAM])
def test_a_cancelled_call_frees_its_slot(caller: Caller, fleet: Fleet, method: str) -> None:
    with connect(fleet.addresses[0]) as first, connect(fleet.addresses[1]) as two:

        def running() -> int:
            return sum(server.wait_until(lambda _: True).running for server in (first, two))

        call = begin(caller, method, request(**ENDLESS))
        while running() == 0:
            pass
        if method == STREAM:
            next(call)  # not buffered by the proxy: the answer takes a quarter of an hour
        call.cancel()
        while running():
            pass


def test_trailing_metadata_arrives(caller: Caller) -> None:
    call = caller.stub.StreamGenerate(request(**SHORT), timeout=SECONDS)
    *_, last = call
    assert last.HasField("summary")
    assert "server-timing" in dict(call.trailing_metadata())
    assert caller.generate(**SHORT).text


def test_errors_have_their_details(caller: Caller) -> None:
    failure = caller.failure(prompt="a", stopping={"max_output_tokens": 0})
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["stopping.max_output_tokens"])


def test_no_proxy_ends_a_call_that_is_silent_for_long(proxies: list[Running], authority: Authority) -> None:
    with ExitStack() as stack:
        callers = [stack.enter_context(connect(proxy.target, authority.roots)) for proxy in proxies]
        calls = [caller.stub.Generate.future(request(**SILENT)) for caller in callers]
        ends = {str(proxy.program): call.code() for proxy, call in zip(proxies, calls, strict=True)}
    assert set(ends.values()) == {grpc.StatusCode.OK}, ends


def test_a_stream_of_requests_may_be_larger_than_the_limit_for_a_body(caller: Caller) -> None:
    text = "a" * 100_000
    with opened(caller.stub) as rpc:
        for number in range(1, 121):
            rpc.send(start(number, prompt=text, stopping={"max_output_tokens": 1}))
            assert rpc.last(number).response.HasField("summary")
        rpc.rest()
