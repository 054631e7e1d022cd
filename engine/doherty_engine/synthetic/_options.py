"""What a deployment may set of the synthetic engine."""

import math
from dataclasses import dataclass

from doherty_engine._options import option, parse_count, parse_positive


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError("it must be 0 or above")
    return value


def _schedule(text: str) -> tuple[int, ...]:
    return tuple(parse_positive(part) for part in text.split(","))


@dataclass(frozen=True, slots=True)
class Options:
    """The size of the imagined model, its pace, and how it fails."""

    slots: int = option(64, parse_positive, "How many requests run at the same time.")
    tokens_per_second: float = option(
        200.0, _number, "The pace of every answer; all get their tokens at the same step. 0 is as fast as possible."
    )
    tokens_per_step: int = option(
        1, parse_positive, "Tokens of an answer a step; above 1 it imitates speculative decoding."
    )
    prefill_seconds: float = option(0.0, _number, "How long any prompt takes before its first step.")
    prefill_tokens_per_second: float = option(
        0.0, _number, "The pace at which a prompt is read besides; 0 takes no time."
    )
    context_tokens: int = option(8192, parse_positive, "How many tokens prompt and answer have together.")
    answer_tokens: tuple[int, ...] = option(
        (170,),
        _schedule,
        "How long answers are, their end-of-sequence token included; of several numbers, as in 40,170, the prompt "
        "picks one.",
    )
    load_seconds: float = option(0.0, _number, "How long the start takes.")
    fail_after_tokens: int = option(
        0, parse_count, "Fails every request once it has generated so many tokens; 0 is never."
    )
    die_after_steps: int = option(0, parse_count, "The engine dies after so many steps; 0 is never.")
    stall_after_steps: int = option(
        0, parse_count, "The engine hangs after so many steps, and does not even react to an abort; 0 is never."
    )
