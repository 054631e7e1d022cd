"""Sends inputs to a server, and checks the answers."""

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
"""The deadline of every call, in seconds. If an input takes longer, the server hangs."""

AT_A_TIME = 10
"""The number of inputs that are sent at the same time."""

_OURS = {
    grpc.StatusCode.INVALID_ARGUMENT: {"INVALID_FIELD", "MALFORMED_MESSAGE"},
    grpc.StatusCode.NOT_FOUND: {"MODEL_NOT_FOUND", "ADAPTER_NOT_FOUND"},
    grpc.StatusCode.RESOURCE_EXHAUSTED: {"COUNTING_FULL"},
    grpc.StatusCode.UNIMPLEMENTED: {"FIELD_NOT_SUPPORTED", "METHOD_NOT_SUPPORTED"},
}
"""The errors that the server may answer, which must have all details: the status codes, and the reasons for each."""

_OTHERS = [
    ("/", grpc.StatusCode.RESOURCE_EXHAUSTED, r"SERVER: Received message larger than max \(\d+ vs\. \d+\)"),
    ("/grpc.health.v1.Health/Check", grpc.StatusCode.NOT_FOUND, ""),
    (
        "/grpc.channelz.v1.Channelz/",
        grpc.StatusCode.NOT_FOUND,
        r"Failed to get .*, please ensure your .* (is|are) valid",
    ),
]
"""Errors of gRPC's core and other services' libraries: beginning of the path, code, and pattern of the text."""

_NORMAL: dict[str, Any] = {"raw_text": "1, 2, 3, 4, 5, 6,", "stopping": {"max_output_tokens": 3}}
"""Every model continues this with such certainty that rounding, which other requests influence, does not change it."""
_GREEDY = {"temperature": 0}


class Attack:
    """Sends many inputs at the same time over a few channels, and counts the answers."""

    def __init__(self, callers: Sequence[Caller], pool: ThreadPoolExecutor) -> None:
        """Records the server's answer to a normal request."""
        self.statuses: Counter[str] = Counter()
        self.rpcs: Counter[str] = Counter()
        self._callers = callers
        self._pool = pool
        self._normal_text = self._ask()

    def send(self, inputs: Sequence[Input]) -> None:
        """Sends inputs at the same time, and checks that the server answers a normal request afterwards.

        Raises:
            AssertionError: An answer contained something that no caller should see, or the normal request failed.
        """
        self.rpcs.update(sent.rpc.path for sent in inputs)
        self.statuses.update(self._pool.map(self._send_one, inputs, range(len(inputs))))
        text = self._ask()
        assert text == self._normal_text, f"the normal answer was {text!r} instead of {self._normal_text!r}"

    def assert_idle(self) -> None:
        """Checks that no input has left a request behind in the server."""
        now = self._callers[0].wait_until(lambda now: not now.running)
        assert not now.queued

    def _ask(self) -> str:
        return self._callers[0].generate(**_NORMAL, sampling=_GREEDY).text

    def _send_one(self, sent: Input, number: int) -> str:
        method = sent.rpc.open(self._callers[number % len(self._callers)].channel)
        requests = iter(sent.requests) if sent.rpc.streams_requests else sent.requests[0]
        try:
            if not sent.rpc.streams_replies:
                method(requests, timeout=HANG_SECONDS)
                return "OK"
            call = method(requests, timeout=HANG_SECONDS)
            for _ in call:
                if sent.rpc.endless:
                    call.cancel()
                    break
        except grpc.RpcError as error:
            return _judge(sent, error)
        return "OK"


def bombard(attack: Attack, strategy: st.SearchStrategy[Input], count: int, number: int) -> None:
    """Sends `count` inputs, which depend on the seed `number`. Makes an input that fails smaller, to be readable.

    Raises:
        AssertionError: As in `Attack.send`.
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
    @given(st.lists(strategy, min_size=AT_A_TIME, max_size=AT_A_TIME))
    def send(inputs: list[Input]) -> None:
        attack.send(inputs)

    send()


def _judge(sent: Input, error: grpc.RpcError) -> str:
    """Returns the server's answer in a short form.

    Raises:
        AssertionError: No caller should see this answer.
    """
    call = cast("grpc.Call", error)
    code, message = call.code(), call.details() or ""
    for path, expected, text in _OTHERS:
        if sent.rpc.path.startswith(path) and code is expected and re.fullmatch(text, message):
            return f"{code.name} of gRPC"
    assert code in _OURS, f"{sent!r}: {code.name}: {message}"
    failure = read_failure(error)
    assert failure.reason in _OURS[code], f"{sent!r}: {failure}"
    assert (failure.domain, bool(failure.request_id)) == ("doherty", True), f"{sent!r}: {failure}"
    assert failure.fields or code is not grpc.StatusCode.INVALID_ARGUMENT, f"{sent!r}: {failure}"
    return f"{code.name} {failure.reason}"


@contextmanager
def attack(target: str, channels: int = 4) -> Iterator[Attack]:
    """Opens channels for an attack on the server at `target`."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))
        yield Attack([stack.enter_context(connect(target)) for _ in range(channels)], pool)
