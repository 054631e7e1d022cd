"""Prints details of an answer: its numbers, its log probabilities, and the attempts."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import Any

import click

from doherty import Generation, TokenLogprob, TopLogprob
from doherty.cli._tables import Row, milliseconds, print_table
from doherty.cli._terminal import brief


class _OneLine(logging.Formatter):
    """Shortens the lines, because some contain error messages of a server."""

    def format(self, record: logging.LogRecord) -> str:
        return brief(super().format(record))


@contextmanager
def logged_attempts() -> Iterator[None]:
    """Writes the SDK's log lines, one for each attempt of a call, to stderr.

    The line of the last attempt is written at the end of the block. Otherwise it would appear within the answer.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(message)s"))
    buffer = MemoryHandler(capacity=100, flushLevel=logging.INFO, target=handler)
    logger = logging.getLogger("doherty")
    level = logger.level
    logger.addHandler(buffer)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(buffer)
        buffer.close()  # writes what is left


def print_details(generation: Generation) -> None:
    """Prints the details of an answer to stderr."""
    print_table(list(_detail_rows(generation)), err=True)


def _detail_rows(generation: Generation) -> Iterator[Row]:
    usage, timings = generation.usage, generation.timings
    cached = "" if usage.cached_tokens is None else f", {usage.cached_tokens} of them from the cache"
    stop = "" if generation.stop_text is None else f", at {generation.stop_text!r}"
    yield "request", generation.request_id
    yield "model", generation.model
    yield "prompt", f"{usage.prompt_tokens} tokens{cached}"
    yield "answer", f"{usage.output_tokens} tokens, {generation.finish_reason}{stop}"
    if generation.seed is not None:
        yield "seed", str(generation.seed)
    if generation.speculation is not None:
        drafts = generation.speculation
        yield "drafts", f"{drafts.accepted_tokens} of {drafts.draft_tokens} accepted, in {drafts.steps} steps"
    for name, seconds in (
        ("queue", timings.queue),
        ("preprocess", timings.preprocess),
        ("first token (TTFT)", timings.time_to_first_token),
        ("per token (TPOT)", timings.time_per_output_token),
        ("last token (TTLT)", timings.time_to_last_token),
        ("total", timings.total),
        ("network", generation.network),
    ):
        yield name, f"{milliseconds(seconds)} ms" if seconds is not None else "-"


def with_token_texts(generation: Generation) -> dict[str, Any]:
    """Returns the fields of an answer. Each token has its text in addition to its bytes."""
    fields = generation.to_dict()
    if generation.logprobs is not None:
        fields["logprobs"] = [
            {**_with_text(entry), "top": [_with_text(top) for top in entry.top]} for entry in generation.logprobs
        ]
    return fields


def _with_text(entry: TokenLogprob | TopLogprob) -> dict[str, Any]:
    return {**entry.to_dict(), "text": entry.text}


def print_logprobs(logprobs: Sequence[TokenLogprob]) -> None:
    """Prints a table of the tokens, their probabilities, and the most probable tokens at each position."""
    click.echo()
    print_table(
        [
            (
                _quoted(entry.token),
                f"{entry.logprob:.3f}",
                f"{math.exp(entry.logprob):.1%}",
                ", ".join(f"{_quoted(top.token)} {math.exp(top.logprob):.1%}" for top in entry.top),
            )
            for entry in logprobs
        ]
        or [("-", "-", "-", "-")],
        headings=("token", "log probability", "probability", "most probable"),
    )


def _quoted(token: bytes) -> str:
    """Returns a token as text, or as bytes if it is not a whole code point."""
    try:
        return repr(token.decode())
    except UnicodeDecodeError:
        return repr(token)
