"""What is measured of a running server: ten questions, cancellation, and streams side by side."""

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
_MOST_TOKENS = 1024
"""The reference's questions, what it says before each of them, and how long it lets answers be."""

_P50, _P90 = 4, 8
"""Of ten sorted figures, as the reference takes them: sorted[int(10 * 0.5) - 1], and likewise."""

_WARM_UP_TOKENS = 8
_ENDLESS_TOKENS = 2000
_STREAM_TOKENS = 128
_STREAMS = (1, 8, 32)
_PLAIN_TOKEN = 5
"""A token that every vocabulary has."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One question."""

    question: str
    answer: str
    tokens: int
    time_to_first_token: float
    """Seconds, as the server saw it; so is the next."""
    time_to_last_token: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of a stream that was cancelled."""

    logprobs: bool
    seconds: float | None
    """From the cancel to a free slot; None where none got free."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Longest:
    """Whether the longest prompt is taken, and one that is longer refused."""

    tokens: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Streamed:
    """Several streams side by side."""

    streams: int
    tokens_per_second: float
    time_to_first_token: float
    """Seconds, the median."""


@dataclass(slots=True)
class ProfileRun:
    """All that one profile did."""

    profile: str
    model: str
    engine_version: str
    answers: list[Answered] = field(default_factory=list)
    cancels: list[Cancelled] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    longest: Longest | None = None
    tokens_a_step: float | None = None
    """In steps of the ten questions that verified a draft; None where nothing is drafted."""
    acceptance: list[float] = field(default_factory=list)
    """The share of drafts of which one token was accepted, two, and so on."""

    @property
    def within(self) -> float:
        """The share of the questions that were answered within 400 ms."""
        return sum(one.time_to_last_token <= _THRESHOLD_SECONDS for one in self.answers) / len(self.answers)

    @property
    def p50(self) -> float:
        """Seconds to the last token."""
        return _sorted(self.answers)[_P50]

    @property
    def p90(self) -> float:
        """Seconds to the last token."""
        return _sorted(self.answers)[_P90]


def run_profile(
    profile: str, server: Server, report: Callable[[str], None], longest_prompt: int | None = None
) -> ProfileRun:
    """Runs everything against a server that has just started.

    Args:
        profile: its profile.
        server: the server.
        report: is told what is done.
        longest_prompt: how many tokens a prompt may have; None where that is one less than the context.
    """
    run = ProfileRun(profile, server.model.model, server.model.engine_version)
    report(f"{profile}: ten questions")
    server.ask(_request("Hello!", _WARM_UP_TOKENS))
    before = server.drafting()
    run.answers = [_ask(server, question) for question in QUESTIONS]
    run.tokens_a_step, run.acceptance = _drafts(before, server.drafting())
    report(f"{profile}: the longest prompt, and one token more")
    run.longest = _try_longest(server, longest_prompt or server.model.limits.context_tokens - 1)
    report(f"{profile}: cancelling")
    run.cancels.append(cancel(server, logprobs=False))
    for count in _STREAMS:
        report(f"{profile}: {count} streams")
        run.streams.append(_stream(server, count))
    return run


def cancel(server: Server, *, logprobs: bool) -> Cancelled:
    """Cancels a stream in the middle, and sees whether the engine is still there."""
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
        return Cancelled(logprobs, None, f"the engine did not survive it: {error.code().name}")
    return Cancelled(logprobs, seconds, "" if seconds is not None else "its slot was not given back")


def _drafts(before: Drafting | None, after: Drafting | None) -> tuple[float | None, list[float]]:
    """Tokens a step, and the share of drafts that were accepted up to each position, between two moments."""
    if before is None or after is None or after.drafts == before.drafts:
        return None, []
    drafts = after.drafts - before.drafts
    pairs = zip_longest(after.accepted_by_position, before.accepted_by_position, fillvalue=0)
    accepted = [late - early for late, early in pairs]
    return 1 + sum(accepted) / drafts, [one / drafts for one in accepted]


def _try_longest(server: Server, tokens: int) -> Longest:
    """Sends a prompt of exactly so many tokens, and one that is longer."""
    try:
        server.ask(_prompt_of(tokens))
    except grpc.RpcError as error:
        return Longest(tokens, f"it is refused: {error.code().name}")
    try:
        server.ask(_prompt_of(tokens + 1))
    except grpc.RpcError as error:
        code = error.code()
        wrong = "" if code is grpc.StatusCode.INVALID_ARGUMENT else f"one token more ends as {code.name}"
        return Longest(tokens, wrong)
    return Longest(tokens, "one token more is taken as well")


def _prompt_of(tokens: int) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(token_ids=[_PLAIN_TOKEN] * tokens)
    request.sampling.temperature = 0.0
    request.stopping.max_output_tokens = 1
    return request


def _ask(server: Server, question: str) -> Answered:
    request = request_pb2.GenerateRequest()
    request.messages.add(role=request_pb2.ROLE_SYSTEM, content=SYSTEM_MESSAGE)
    request.messages.add(role=request_pb2.ROLE_USER, content=question)
    request.stopping.max_output_tokens = _MOST_TOKENS
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
        begun = time.monotonic()
        firsts = sorted(pool.map(run, range(count)))
        took = time.monotonic() - begun
    return Streamed(count, count * _STREAM_TOKENS / took, firsts[(count - 1) // 2])


def _request(prompt: str, most: int, *, ignore_eos: bool = False) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(prompt=prompt)
    request.sampling.temperature = 0.0
    request.stopping.max_output_tokens = most
    request.stopping.ignore_eos = ignore_eos
    return request


def _sorted(answers: Sequence[Answered]) -> list[float]:
    return sorted(one.time_to_last_token for one in answers)
