"""Reads a request of the synthetic engine, and decides on its whole answer."""

import time
from dataclasses import dataclass

from doherty_engine import (
    Choices,
    Constraint,
    EngineRequest,
    JsonSchema,
    Regex,
    Started,
    UnsupportedError,
    output_budget,
)
from doherty_engine.synthetic._answer import Answer, FixedAnswer, FreeAnswer, answer_key, pick, prompt_digest
from doherty_engine.synthetic._options import Options
from doherty_engine.synthetic._schema import smallest_value
from doherty_engine.synthetic._vocabulary import check_ids, check_size, decode, encode, read_held, read_input


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a request before its first step."""

    started: Started
    prefill: float
    """Seconds until its first step may come."""
    held_ids: list[int]
    max_tokens: int
    answer: Answer
    ends_with_eos: bool
    """Whether an end-of-sequence token ends the answer."""


def make_plan(request: EngineRequest, options: Options) -> Plan:
    """Reads a request.

    Raises:
        InvalidInputError: the input, the held part or a constraint is wrong.
        UnsupportedError: this engine cannot do it.
    """
    begun = time.monotonic()
    check_size(request.input, options.context_tokens)
    prompt_ids = read_input(request.input)
    started = Started(len(prompt_ids), time.monotonic() - begun)
    stopping = request.stopping
    check_ids(stopping.stop_token_ids, "stopping.stop_token_ids")
    max_tokens = output_budget(request.input, len(prompt_ids), options.context_tokens, stopping)
    held_ids = [] if request.held is None else read_held(request.held)
    prefill = options.prefill_seconds
    if options.prefill_tokens_per_second:
        prefill += (len(prompt_ids) + len(held_ids)) / options.prefill_tokens_per_second
    digest = prompt_digest(prompt_ids)
    key = answer_key(digest, request.adapter, request.sampling)
    if request.constraint is not None:
        texts = _fitting_texts(request.constraint, key, options)
        answer: Answer = FixedAnswer(_behind(held_ids, texts))
    else:
        length = options.answer_tokens[pick(digest, len(options.answer_tokens))]
        end = max(length, stopping.min_output_tokens) - 1
        answer = FreeAnswer(key, end, ignore_eos=stopping.ignore_eos)
    ends_with_eos = request.constraint is not None or not stopping.ignore_eos
    return Plan(started, prefill, held_ids, max_tokens, answer, ends_with_eos)


def _fitting_texts(constraint: Constraint, key: bytes, options: Options) -> list[str]:
    """Texts that fit the constraint, the one first that the request gets."""
    match constraint:
        case Choices(choices):
            first = pick(key, len(choices))
            return [*choices[first:], *choices[:first]]
        case JsonSchema(schema):
            return [smallest_value(schema, options.context_tokens)]
        case _:
            name = "regex" if isinstance(constraint, Regex) else "grammar"
            raise UnsupportedError(f"constraint.{name}", "this engine knows json_schema and choices alone")


def _behind(held_ids: list[int], texts: list[str]) -> list[int]:
    """The tokens of the first text that begins with the held part."""
    held = decode(held_ids).decode(errors="replace")
    for text in texts:
        if text.startswith(held):
            return held_ids + encode(text[len(held) :])
    raise UnsupportedError("continue_from", "this engine gives no answer that fits the constraint and begins like this")
