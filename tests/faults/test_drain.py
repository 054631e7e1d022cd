"""SIGTERM while fifty streams run and further calls arrive."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_status import rpc_status

from support.gpu import ENGINES, start_trtllm, write_model
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, connect, read_failure, request

STREAMS = 50
COMERS = 8
SLOTS = f"slots={STREAMS + COMERS}"
SHORT: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 2, "ignore_eos": True}}

Ends = Counter[tuple[str, str]]
"""How calls ended: the code, and the reason if the server sent one."""


def end_of(call: Any) -> tuple[str, str]:
    """Reads a stream to its end, and returns how it ended."""
    try:
        *_, last = call
    except grpc.RpcError as error:
        ended = cast("grpc.Call", error)
        if rpc_status.from_call(ended) is None:
            return ended.code().name, f"without details: {ended.details()}"
        failure = read_failure(error)
        assert failure.retry_seconds is not None
        return failure.code.name, failure.reason
    return "OK", "complete" if last.HasField("summary") else "cut"


def keep_coming(caller: Caller) -> Ends:
    """Sends one request after the other until the server has ended."""
    ends: Ends = Counter()
    while True:
        code, reason = end = end_of(caller.stub.StreamGenerate(request(**SHORT), timeout=SECONDS))
        if code == "UNAVAILABLE" and reason.startswith("without details"):
            return ends
        ends[end] += 1


Start = Callable[..., AbstractContextManager[ServerProcess]]
"""Starts a server that generates fifty tokens per second, with the given flags."""


@pytest.fixture(params=["synthetic", *ENGINES])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    if request.param == "synthetic":
        return partial(start_server, "--engine", "synthetic", "-o", "tokens_per_second=50", "-o", SLOTS)
    model = write_model(tmp_path / "model").path

    def starting(*flags: str) -> AbstractContextManager[ServerProcess]:
        batch = () if request.param == "tensorrt" else (f"max_batch_size={STREAMS + COMERS}",)
        return start_trtllm(model, *ENGINES[request.param], SLOTS, *batch, flags=flags, tokens_per_second=50)

    return starting


@contextmanager
def busy(
    start: Start, tokens: int, *flags: str
) -> Iterator[tuple[ServerProcess, list[Future[tuple[str, str]]], list[Future[Ends]]]]:
    """Runs a server with fifty running streams of this many tokens each, and further callers."""
    long: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": tokens, "ignore_eos": True}}
    with (
        start(*flags) as server,
        ThreadPoolExecutor(STREAMS + COMERS) as pool,
        ExitStack() as stack,
    ):
        callers = [stack.enter_context(connect(server.target)) for _ in range(COMERS)]
        calls = [callers[0].stub.StreamGenerate(request(**long), timeout=SECONDS) for _ in range(STREAMS)]
        streams = [pool.submit(end_of, call) for call in calls]
        callers[0].wait_until(lambda now: now.running == STREAMS)
        comers = [pool.submit(keep_coming, caller) for caller in callers]
        callers[0].wait_until(lambda now: now.running > STREAMS)
        yield server, streams, comers


def sum_up(ended: list[Future[Ends]]) -> Ends:
    return sum((counting.result() for counting in ended), Counter())


def test_running_streams_finish_and_new_ones_are_refused(start: Start) -> None:
    with busy(start, 300) as (server, streams, comers):
        server.process.send_signal(signal.SIGTERM)
        assert {stream.result() for stream in streams} == {("OK", "complete")}
        assert server.wait() == 0
        ends = sum_up(comers)
    assert ends.keys() == {("OK", "complete"), ("UNAVAILABLE", "DRAINING")}


@pytest.mark.parametrize("grace", ["0", "0.5"])
def test_streams_beyond_the_grace_period_end_with_drained(start: Start, grace: str) -> None:
    with busy(start, 3000, "--drain-grace", grace) as (server, streams, comers):
        server.process.send_signal(signal.SIGTERM)
        assert {stream.result() for stream in streams} == {("UNAVAILABLE", "DRAINED")}
        assert server.wait() == 0
        ends = sum_up(comers)
    assert ends.keys() <= {("OK", "complete"), ("UNAVAILABLE", "DRAINING"), ("UNAVAILABLE", "DRAINED")}
