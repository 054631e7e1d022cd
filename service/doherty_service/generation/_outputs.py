"""Outputs of an engine: records them, and merges several into one."""

from collections.abc import Sequence
from itertools import chain, compress
from typing import TypeVar

from doherty_engine import StepOutput
from doherty_service.telemetry import RequestRecord

_Item = TypeVar("_Item")


def mark(record: RequestRecord, output: StepOutput) -> None:
    """Writes the timestamps and counts of an output to the record."""
    if output.started is not None:
        record.mark_started(output.started.prompt_tokens, output.started.preprocess, output.started.queue)
        record.caller.charge(output.started.prompt_tokens)
    if output.token_count:
        record.mark_tokens(output.token_count)
    if output.finish is not None:
        finish = output.finish
        record.mark_summary(finish.reason.value, finish.cached_tokens, finish.engine_time_to_first_token)
        request = record.engine_request
        if request is not None and request.prefix is not None and record.continued_tokens is None:
            record.continued_tokens = finish.output_tokens - record.output_tokens


def merge(outputs: Sequence[StepOutput]) -> StepOutput:
    """Merges consecutive outputs into one. A field that is unknown in one of them is unknown in the result."""
    if len(outputs) == 1:
        return outputs[0]
    keys, texts, counts, token_ids, logprobs, starts, finishes, errors = zip(*outputs, strict=True)
    return StepOutput(
        keys[-1],
        "".join(texts),
        sum(counts),
        _join(token_ids, counts),
        _join(logprobs, counts),
        next(filter(None, starts), None),
        finishes[-1],
        errors[-1],
    )


def _join(parts: Sequence[tuple[_Item, ...] | None], counts: Sequence[int]) -> tuple[_Item, ...] | None:
    """Joins the parts of all outputs that have tokens; None if one of these parts is unknown."""
    known: list[tuple[_Item, ...]] = []
    for part in compress(parts, counts):
        if part is None:
            return None
        known.append(part)
    return tuple(chain.from_iterable(known))
