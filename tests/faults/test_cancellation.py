"""No matter when and how a request ends early, its slot is freed and the cause is counted."""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

import grpc
import pytest

from doherty.v1 import generation_service_pb2_grpc
from doherty.v1.latency_service_pb2 import (
    ABORT_CAUSE_CANCELLED,
    ABORT_CAUSE_DEADLINE,
    ABORT_CAUSE_STALLED_READER,
    AbortCause,
    GetLatencyResponse,
)
from doherty.v1.request_pb2 import GenerateRequest
from support import endings
from support.endings import STREAM, UNARY, Ending
from support.gpu import ENGINES, start_trtllm, write_model
from support.server import ServerProcess, start_server
from support.wire import SECONDS, Caller, Failure, connect, failure_of, request

SLOTS = 2
PACED = ("--engine", "synthetic", "-o", "tokens_per_second=20", "-o", "prefill_tokens_per_second=500")
ENDLESS: dict[str, Any] = {"stopping": {"max_output_tokens": 3000, "ignore_eos": True}}
SHORT = "Hi."
LONG = "The quick brown fox jumps over the lazy dog. " * 250
"""The maximum length of these answers: 2,500 tokens, which take either engine many seconds."""

QUEUED, PROMPT, TOKENS = "queued", "prompt", "tokens"
CAUSES: dict[str, tuple[Ending, AbortCause.ValueType | None]] = {
    "cancel": (endings.cancelled, ABORT_CAUSE_CANCELLED),
    "deadline": (endings.past_deadline, ABORT_CAUSE_DEADLINE),
    "FIN": (endings.finished, ABORT_CAUSE_CANCELLED),
    "kill -9": (endings.killed, ABORT_CAUSE_CANCELLED),
    "RST": (endings.reset, ABORT_CAUSE_CANCELLED),
    "time limit": (endings.past_time_limit, None),
}
"""How a request ends, and the cause that is counted. An answer that its time limit ends counts as complete."""

BY_ITSELF = {"deadline", "time limit"}


@dataclass(frozen=True)
class Case:
    """A request that ends early."""

    cause: str
    method: str
    moment: str
    logprobs: bool = False

    def __str__(self) -> str:
        return ", ".join((self.cause, self.method, self.moment, *(["logprobs"] if self.logprobs else [])))

    @property
    def request(self) -> GenerateRequest:
        prompt = LONG if self.moment == PROMPT else SHORT
        output = {"top_logprobs": 2} if self.logprobs else {}
        return request(prompt=prompt, **ENDLESS, output=output, request_id=str(self).replace(",", ""))


CASES = [
    *(
        Case(*triple)
        for triple in product(CAUSES, (UNARY, STREAM), (QUEUED, PROMPT, TOKENS))
        if (triple[0], triple[2]) != ("deadline", QUEUED)  # otherwise, the request would be refused immediately
    ),
    *(Case(*pair, TOKENS, logprobs=True) for pair in product(CAUSES, (UNARY, STREAM))),
]
MODEL_CASES = [
    Case("cancel", STREAM, QUEUED),
    Case("cancel", STREAM, PROMPT),
    Case("cancel", STREAM, TOKENS, logprobs=True),
    Case("cancel", UNARY, TOKENS),
    Case("deadline", UNARY, PROMPT),
    Case("kill -9", STREAM, TOKENS),
    Case("RST", UNARY, TOKENS),
    Case("time limit", STREAM, PROMPT),
]


def aborts(now: GetLatencyResponse) -> dict[int, int]:
    return {abort.cause: abort.count for abort in now.aborts}


@pytest.fixture(scope="module")
def paced() -> Iterator[ServerProcess]:
    with start_server(*PACED, "-o", f"slots={SLOTS}") as server:
        yield server


@pytest.fixture(scope="module", params=ENGINES)
def trtllm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Runs TensorRT-LLM on the fake, at the speed of `paced`, with a context that has room for all requests."""
    model = write_model(tmp_path_factory.mktemp(request.param) / "model", max_position_embeddings=32768)
    room = ("max_seq_len=32768", "max_num_tokens=32768", f"slots={SLOTS}")
    options = (*ENGINES[request.param], *room)
    with start_trtllm(model.path, *options, tokens_per_second=20, prefill_tokens_per_second=1500) as server:
        yield server


@pytest.fixture(scope="module")
def model() -> Iterator[ServerProcess]:
    with start_server("-o", f"slots={SLOTS}", "-o", "prompt_cache=false") as server:
        yield server


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_remains_of_a_request_that_ends_early(paced: ServerProcess, case: Case) -> None:
    check(paced, case)


@pytest.mark.model
@pytest.mark.parametrize("case", MODEL_CASES, ids=str)
def test_nothing_remains_with_a_real_model(model: ServerProcess, case: Case) -> None:
    check(model, case)


@pytest.mark.parametrize("case", MODEL_CASES, ids=str)
def test_nothing_remains_with_tensorrt_llm(trtllm: ServerProcess, case: Case) -> None:
    check(trtllm, case)


def check(server: ServerProcess, case: Case) -> None:
    ending, cause = CAUSES[case.cause]
    with connect(server.target) as caller, ExitStack() as blocking:
        before = aborts(caller.wait_until(lambda now: not now.running))
        if case.moment == QUEUED:
            block(caller, blocking)
        running = SLOTS if case.moment == QUEUED else 0
        with ending(server.target, case.method, case.request):
            if case.cause not in BY_ITSELF:
                wait_for_moment(caller, case)
        expected = dict(before)
        if cause is not None:
            expected[cause] = expected.get(cause, 0) + 1
        caller.wait_until(lambda now: (now.running, now.queued, aborts(now)) == (running, 0, expected))
    logged = server.wait_for("request", request_id=case.request.request_id)
    assert bool(logged.get("output_tokens")) == (case.moment == TOKENS)


def block(caller: Caller, blocking: ExitStack) -> None:
    """Takes all slots."""
    for _ in range(SLOTS):
        blocking.callback(caller.stub.StreamGenerate(request(prompt=SHORT, **ENDLESS), timeout=SECONDS).cancel)
    caller.wait_until(lambda now: now.running == SLOTS)


def wait_for_moment(caller: Caller, case: Case) -> None:
    if case.moment == QUEUED:
        caller.wait_until(lambda now: now.queued == 1)
        return
    caller.wait_until(lambda now: now.running == 1)
    if case.moment == TOKENS:
        # Later requests get their tokens later. Only the first one may overtake the request while it is tokenized.
        for _ in range(2):
            caller.generate(prompt=SHORT, stopping={"max_output_tokens": 4})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_ends_requests_in_every_state(number: int) -> None:
    running = [Case("drain", *pair) for pair in product((UNARY, STREAM), (PROMPT, TOKENS))]
    running += [Case("drain", method, TOKENS, logprobs=True) for method in (UNARY, STREAM)]
    queued = [Case("drain", method, QUEUED) for method in (UNARY, STREAM)]
    with start_server(*PACED, "-o", f"slots={len(running) + 1}", "--drain-grace", "0") as server:
        with connect(server.target) as caller, ThreadPoolExecutor(len(running + queued)) as pool:

            def begin(case: Case) -> Future[Failure]:
                call = endings.begin(caller, case.method, case.request)
                return pool.submit(failure_of, lambda: endings.replies(call, case.method))

            ending = [begin(case) for case in running]
            caller.wait_until(lambda now: now.running == len(running))
            caller.generate(prompt=SHORT, stopping={"max_output_tokens": 1})  # by then, tokens arrive
            ending.append(begin(Case("drain", STREAM, TOKENS)))
            ending += [begin(case) for case in queued]
            caller.wait_until(lambda now: now.queued == len(queued))
            server.process.send_signal(number)
            failures = [pending.result() for pending in ending]
        assert server.wait() == 0
    assert {(failure.code, failure.reason) for failure in failures} == {(grpc.StatusCode.UNAVAILABLE, "DRAINED")}
    assert all(failure.retry_seconds for failure in failures)


@pytest.mark.parametrize("stall_timeout", ["30", "3"], ids=["leaves", "stays"])
def test_a_caller_may_leave_while_a_write_is_stuck(stall_timeout: str) -> None:
    """If a caller leaves, grpc.aio raises an error in the write of the handler, which is not a CancelledError.

    In the log neither is an error: it would be full of stacks, at the callers' will.
    """
    narrow = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    flags = ("-o", "tokens_per_second=2000", "-o", "context_tokens=1000000", "--stall-timeout", stall_timeout)
    with (
        start_server("--engine", "synthetic", *flags) as server,
        connect(server.target) as caller,
        grpc.insecure_channel(server.target, options=narrow) as channel,
    ):
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        wordy = {"stopping": {"max_output_tokens": 900_000, "ignore_eos": True}, "output": {"top_logprobs": 5}}
        unread = stub.StreamGenerate(request(prompt=SHORT, **wordy, request_id="stuck"), timeout=SECONDS)
        caller.wait_until(lambda now: now.running == 1)
        caller.generate(prompt=SHORT, stopping={"max_output_tokens": 1000, "ignore_eos": True})
        leaves = stall_timeout == "30"
        if leaves:
            unread.cancel()
        now = caller.wait_until(lambda now: not now.running and len(now.aborts) > 0)
        assert aborts(now) == {ABORT_CAUSE_CANCELLED if leaves else ABORT_CAUSE_STALLED_READER: 1}
        line = server.wait_for("request", request_id="stuck")
        assert line["code"] == "CANCELLED"
        assert isinstance(line["output_tokens"], int)
        assert 0 < line["output_tokens"] < 1000  # the remaining output waited behind a write
        assert server.stop() == 0
        lines = [*server.log, *server.read()]
        assert [line for line in lines if line.get("level") == "error" or "exception" in line] == []
