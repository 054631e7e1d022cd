"""Measures a running server: ten questions, the longest prompt, cancellation, and parallel streams."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest

import grpc

from doherty.v1 import request_pb2
from doherty_engine import Drafting
from doherty_engine_cli._server import Server

QUESTIONS = (
    "What atoms are in water?",
    "Which F1 team won in 2011?",
    "What is 12 * 9?",
    "Python function to print odd numbers between 1 and 10. Answer with code only.",
    "What is the capital of California?",
    "What's the tallest building in new york city?",
    "What year did the European Union form?",
    "How old was Geoff Hinton in 2022?",
    "Where is Berkeley?",
    "Are greyhounds or poodles faster?",
)
_THRESHOLD_SECONDS = 0.4
SYSTEM_MESSAGE = "You are a helpful, harmless, and honest AI assistant created by Meta."
_MAX_TOKENS = 1024
"""The questions, the system message and the maximum number of output tokens are those of the reference."""

_P50, _P90 = 4, 8
"""Indices into ten sorted values, as the reference computes them: int(10 * 0.5) - 1 and int(10 * 0.9) - 1."""

_WARM_UP_TOKENS = 8
_ENDLESS_TOKENS = 2000
_STREAM_TOKENS = 128
_STREAMS = (1, 8, 32)
_PLAIN_TOKEN = 5
"""A token that every vocabulary contains."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one question. Times are in seconds, as measured by the server."""

    question: str
    answer: str
    tokens: int
    time_to_first_token: float
    time_to_last_token: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The result of cancelling a stream."""

    logprobs: bool
    seconds: float | None
    """Seconds from the cancellation until the slot was free; None if it did not become free."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Longest:
    """Whether the longest prompt is accepted, and a longer one refused."""

    tokens: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Streamed:
    """The result of several parallel streams."""

    streams: int
    tokens_per_second: float
    time_to_first_token: float
    """The median, in seconds."""


@dataclass(slots=True)
class ProfileRun:
    """All results of one profile."""

    profile: str
    model: str
    engine_version: str
    answers: list[Answered] = field(default_factory=list)
    cancels: list[Cancelled] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    longest: Longest | None = None
    tokens_a_step: float | None = None
    """Tokens per step that verified a draft, over the ten questions; None without speculative decoding."""
    acceptance: list[float] = field(default_factory=list)
    """The share of drafts of which at least one token was accepted, at least two, and so on."""

    @property
    def within(self) -> float:
        """The share of answers that were complete within 400 ms."""
        return sum(answer.time_to_last_token <= _THRESHOLD_SECONDS for answer in self.answers) / len(self.answers)

    @property
    def p50(self) -> float:
        """The p50 of the time to the last token, in seconds."""
        return _sorted(self.answers)[_P50]

    @property
    def p90(self) -> float:
        """The p90 of the time to the last token, in seconds."""
        return _sorted(self.answers)[_P90]


def run_profile(
    profile: str, server: Server, report: Callable[[str], None], longest_prompt: int | None = None
) -> ProfileRun:
    """Runs all measurements against a server that has just started.

    Args:
        profile: The server's profile.
        server: The server.
        report: Called with the name of each step.
        longest_prompt: Maximum number of prompt tokens; None means one less than the model's context.
    """
    run = ProfileRun(profile, server.model.model, server.model.engine_version)
    report(f"{profile}: ten questions")
    server.ask(_request("Hello!", _WARM_UP_TOKENS))
    before = server.drafting()
    run.answers = [_ask(server, question) for question in QUESTIONS]
    run.tokens_a_step, run.acceptance = _drafts(before, server.drafting())
    report(f"{profile}: the longest prompt, and one with one more token")
    run.longest = _try_longest(server, longest_prompt or server.model.limits.context_tokens - 1)
    report(f"{profile}: cancelling")
    run.cancels.append(cancel(server, logprobs=False))
    for count in _STREAMS:
        report(f"{profile}: {count} streams")
        run.streams.append(_stream(server, count))
    return run


def cancel(server: Server, *, logprobs: bool) -> Cancelled:
    """Cancels a running stream, and checks that the engine still works."""
    request = _request("Tell me a long story.", _ENDLESS_TOKENS, ignore_eos=True)
    if logprobs:
        request.output.top_logprobs = 1
    try:
        call = server.stream(request)
        next(call)
        next(call)
        call.cancel()
        seconds = server.seconds_until_free()
        server.ask(_request("Hello!", _WARM_UP_TOKENS))
    except grpc.RpcError as error:
        return Cancelled(logprobs, None, f"the engine failed: {error.code().name}")
    return Cancelled(logprobs, seconds, "" if seconds is not None else "the slot did not become free")


def _drafts(before: Drafting | None, after: Drafting | None) -> tuple[float | None, list[float]]:
    """Returns tokens per step, and the share of drafts accepted up to each position, between two readings."""
    if before is None or after is None or after.drafts == before.drafts:
        return None, []
    drafts = after.drafts - before.drafts
    pairs = zip_longest(after.accepted_by_position, before.accepted_by_position, fillvalue=0)
    accepted = [late - early for late, early in pairs]
    return 1 + sum(accepted) / drafts, [count / drafts for count in accepted]


def _try_longest(server: Server, tokens: int) -> Longest:
    """Sends a prompt of `tokens` tokens, and one that is one token longer."""
    try:
        server.ask(_prompt_of(tokens))
    except grpc.RpcError as error:
        return Longest(tokens, f"it was refused: {error.code().name}")
    try:
        server.ask(_prompt_of(tokens + 1))
    except grpc.RpcError as error:
        code = error.code()
        is_refused = code is grpc.StatusCode.INVALID_ARGUMENT
        return Longest(tokens, "" if is_refused else f"a prompt with one more token ended as {code.name}")
    return Longest(tokens, "a prompt with one more token was accepted")


def _prompt_of(tokens: int) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(token_ids=[_PLAIN_TOKEN] * tokens)
    request.sampling.temperature = 0.0
    request.stopping.max_output_tokens = 1
    return request


def _ask(server: Server, question: str) -> Answered:
    request = request_pb2.GenerateRequest()
    request.messages.add(role=request_pb2.ROLE_SYSTEM, content=SYSTEM_MESSAGE)
    request.messages.add(role=request_pb2.ROLE_USER, content=question)
    request.stopping.max_output_tokens = _MAX_TOKENS
    reply = server.ask(request)
    timings = reply.summary.timings
    return Answered(
        question,
        reply.text,
        reply.summary.usage.output_tokens,
        timings.time_to_first_token.ToNanoseconds() / 1e9,
        timings.time_to_last_token.ToNanoseconds() / 1e9,
    )


def _stream(server: Server, count: int) -> Streamed:
    request = _request("Tell me a long story.", _STREAM_TOKENS, ignore_eos=True)

    def run(_: int) -> float:
        last = list(server.stream(request))[-1]
        first: float = last.summary.timings.time_to_first_token.ToNanoseconds() / 1e9
        return first

    with ThreadPoolExecutor(count) as pool:
        start = time.monotonic()
        first_token_times = sorted(pool.map(run, range(count)))
        duration = time.monotonic() - start
    return Streamed(count, count * _STREAM_TOKENS / duration, first_token_times[(count - 1) // 2])


def _request(prompt: str, max_tokens: int, *, ignore_eos: bool = False) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(prompt=prompt)
    request.sampling.temperature = 0.0
    request.stopping.max_output_tokens = max_tokens
    request.stopping.ignore_eos = ignore_eos
    return request


def _sorted(answers: Sequence[Answered]) -> list[float]:
    return sorted(answer.time_to_last_token for answer in answers)
