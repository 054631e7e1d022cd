"""Sends inputs to a server, and judges what comes back."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from support.fuzz.inputs import Input
from support.wire import Caller, connect, read_failure

HANG_SECONDS = 30
"""The deadline of every call: an input that takes longer has hung the server."""

AT_A_TIME = 10
"""Inputs that are sent at the same time."""

_OURS = {
    grpc.StatusCode.INVALID_ARGUMENT: {"INVALID_FIELD", "MALFORMED_MESSAGE"},
    grpc.StatusCode.NOT_FOUND: {"MODEL_NOT_FOUND", "ADAPTER_NOT_FOUND"},
    grpc.StatusCode.RESOURCE_EXHAUSTED: {"COUNTING_FULL"},
    grpc.StatusCode.UNIMPLEMENTED: {"FIELD_NOT_SUPPORTED", "METHOD_NOT_SUPPORTED"},
}
"""What the server may say to an input, with all its details: the codes, and the reasons for each."""

_OTHERS = [
    ("/", grpc.StatusCode.RESOURCE_EXHAUSTED, r"SERVER: Received message larger than max \(\d+ vs\. \d+\)"),
    ("/grpc.health.v1.Health/Check", grpc.StatusCode.NOT_FOUND, ""),
    (
        "/grpc.channelz.v1.Channelz/",
        grpc.StatusCode.NOT_FOUND,
        r"Failed to get .*, please ensure your .* (is|are) valid",
    ),
]
"""What gRPC's core and the libraries of other services say by themselves: the beginning of the path, the code, and a
pattern of the text."""

_NORMAL: dict[str, Any] = {"raw_text": "1, 2, 3, 4, 5, 6,", "stopping": {"max_output_tokens": 3}}
"""Every model is so sure of how this goes on that the rounding of other requests beside it changes nothing."""
_GREEDY = {"temperature": 0}


class Attack:
    """Sends inputs over a few channels, many at a time, and counts what came back."""

    def __init__(self, callers: Sequence[Caller], pool: ThreadPoolExecutor) -> None:
        """Learns what the server answers to a normal request."""
        self.statuses: Counter[str] = Counter()
        self.rpcs: Counter[str] = Counter()
        self._callers = callers
        self._pool = pool
        self._normal_text = self._ask()

    def send(self, inputs: Sequence[Input]) -> None:
        """Sends inputs at the same time, and makes sure that the server is well afterwards.

        Raises:
            AssertionError: one was answered with what no caller should see, or the server is not well.
        """
        self.rpcs.update(one.rpc.path for one in inputs)
        self.statuses.update(self._pool.map(self._send_one, inputs, range(len(inputs))))
        text = self._ask()
        assert text == self._normal_text, f"{text!r} instead of {self._normal_text!r}"

    def assert_idle(self) -> None:
        """Makes sure that no input has left anything behind in the server."""
        now = self._callers[0].wait_until(lambda now: not now.running)
        assert not now.queued

    def _ask(self) -> str:
        return self._callers[0].generate(**_NORMAL, sampling=_GREEDY).text

    def _send_one(self, one: Input, number: int) -> str:
        method = one.rpc.open(self._callers[number % len(self._callers)].channel)
        requests = iter(one.requests) if one.rpc.streams_requests else one.requests[0]
        try:
            if not one.rpc.streams_replies:
                method(requests, timeout=HANG_SECONDS)
                return "OK"
            call = method(requests, timeout=HANG_SECONDS)
            for _ in call:
                if one.rpc.endless:
                    call.cancel()
                    break
        except grpc.RpcError as error:
            return _judge(one, error)
        return "OK"


def bombard(attack: Attack, one: st.SearchStrategy[Input], count: int, number: int) -> None:
    """Sends `count` inputs, the same ones for the same `number`; what fails is made smaller until it is readable.

    Raises:
        AssertionError: as in `Attack.send`.
    """

    @seed(number)
    @settings(
        max_examples=count // AT_A_TIME,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
        suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow],
    )
    @given(st.lists(one, min_size=AT_A_TIME, max_size=AT_A_TIME))
    def send(inputs: list[Input]) -> None:
        attack.send(inputs)

    send()


def _judge(one: Input, error: grpc.RpcError) -> str:
    """What the server said, in short.

    Raises:
        AssertionError: no caller should see it.
    """
    call = cast("grpc.Call", error)
    code, message = call.code(), call.details() or ""
    for path, expected, text in _OTHERS:
        if one.rpc.path.startswith(path) and code is expected and re.fullmatch(text, message):
            return f"{code.name} of gRPC"
    assert code in _OURS, f"{one!r}: {code.name}: {message}"
    failure = read_failure(error)
    assert failure.reason in _OURS[code], f"{one!r}: {failure}"
    assert (failure.domain, bool(failure.request_id)) == ("doherty", True), f"{one!r}: {failure}"
    assert failure.fields or code is not grpc.StatusCode.INVALID_ARGUMENT, f"{one!r}: {failure}"
    return f"{code.name} {failure.reason}"


@contextmanager
def attack(target: str, channels: int = 4) -> Iterator[Attack]:
    """An attack on the server at `target`."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))
        yield Attack([stack.enter_context(connect(target)) for _ in range(channels)], pool)
