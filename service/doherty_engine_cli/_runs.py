"""Measures a running server: ten questions, the longest prompt, cancellation, and parallel streams."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest

from doherty import Client, DohertyError, GenerateOptions, InvalidRequestError, TokenIds
from doherty.cli import QUESTIONS
from doherty_engine import Drafting, EngineSetupError
from doherty_engine_cli._server import Server

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
_STORY = "Tell me a long story."
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
    client = server.client
    model = client.model()
    run = ProfileRun(profile, model.model, model.engine_version)
    report(f"{profile}: ten questions")
    _warm_up(client)
    before = server.drafting()
    run.answers = [_ask(client, question) for question in QUESTIONS]
    run.tokens_a_step, run.acceptance = _drafts(before, server.drafting())
    report(f"{profile}: the longest prompt, and one with one more token")
    run.longest = _try_longest(client, longest_prompt or model.limits.context_tokens - 1)
    report(f"{profile}: cancelling")
    run.cancels.append(cancel(server, logprobs=False))
    for count in _STREAMS:
        report(f"{profile}: {count} streams")
        run.streams.append(_stream(client, count))
    return run


def cancel(server: Server, *, logprobs: bool) -> Cancelled:
    """Cancels a running stream, and checks that the engine still works."""
    options = GenerateOptions(ignore_eos=True, top_logprobs=1 if logprobs else None)
    try:
        with server.client.stream_generate(
            _STORY, temperature=0.0, max_output_tokens=_ENDLESS_TOKENS, options=options
        ) as stream:
            next(stream)
            next(stream)
        seconds = server.seconds_until_free()
        _warm_up(server.client)
    except DohertyError as error:
        return Cancelled(logprobs, None, f"the engine failed: {error}")
    return Cancelled(logprobs, seconds, "" if seconds is not None else "the slot did not become free")


def _drafts(before: Drafting | None, after: Drafting | None) -> tuple[float | None, list[float]]:
    """Returns tokens per step, and the share of drafts accepted up to each position, between two readings."""
    if before is None or after is None or after.drafts == before.drafts:
        return None, []
    drafts = after.drafts - before.drafts
    pairs = zip_longest(after.accepted_by_position, before.accepted_by_position, fillvalue=0)
    accepted = [late - early for late, early in pairs]
    return 1 + sum(accepted) / drafts, [count / drafts for count in accepted]


def _try_longest(client: Client, tokens: int) -> Longest:
    """Sends a prompt of `tokens` tokens, and one that is one token longer."""
    try:
        _send_prompt(client, tokens)
    except DohertyError as error:
        return Longest(tokens, f"it was refused: {error}")
    try:
        _send_prompt(client, tokens + 1)
    except InvalidRequestError:
        return Longest(tokens)
    except DohertyError as error:
        return Longest(tokens, f"a prompt with one more token failed: {error}")
    return Longest(tokens, "a prompt with one more token was accepted")


def _send_prompt(client: Client, tokens: int) -> None:
    client.generate(TokenIds([_PLAIN_TOKEN] * tokens), temperature=0.0, max_output_tokens=1)


def _warm_up(client: Client) -> None:
    client.generate("Hello!", temperature=0.0, max_output_tokens=_WARM_UP_TOKENS)


def _ask(client: Client, question: str) -> Answered:
    answer = client.generate(question, system=SYSTEM_MESSAGE, max_output_tokens=_MAX_TOKENS)
    timings = answer.timings
    return Answered(
        question,
        answer.text,
        answer.usage.output_tokens,
        _seconds(timings.time_to_first_token),
        _seconds(timings.time_to_last_token),
    )


def _stream(client: Client, count: int) -> Streamed:
    options = GenerateOptions(ignore_eos=True)

    def time_to_first_token(_: int) -> float:
        with client.stream_generate(
            _STORY, temperature=0.0, max_output_tokens=_STREAM_TOKENS, options=options
        ) as stream:
            return _seconds(stream.result().timings.time_to_first_token)

    with ThreadPoolExecutor(count) as pool:
        start = time.monotonic()
        first_token_times = sorted(pool.map(time_to_first_token, range(count)))
        duration = time.monotonic() - start
    return Streamed(count, count * _STREAM_TOKENS / duration, first_token_times[(count - 1) // 2])


def _seconds(measured: float | None) -> float:
    """Returns a time of an answer. An answer without tokens has none, and must not count as a fast one."""
    if measured is None:
        raise EngineSetupError("An answer has no tokens, so its times cannot be measured.")
    return measured


def _sorted(answers: Sequence[Answered]) -> list[float]:
    return sorted(answer.time_to_last_token for answer in answers)
