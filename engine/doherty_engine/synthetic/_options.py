"""The options of the synthetic engine."""

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
    """The size of the simulated model, its speed, and its failures."""

    slots: int = option(64, parse_positive, "Maximum number of concurrent requests.")
    tokens_per_second: float = option(
        200.0, _number, "Speed of each answer; all answers get their tokens in the same step. 0: as fast as possible."
    )
    tokens_per_step: int = option(
        1, parse_positive, "Tokens per answer and step. Values above 1 simulate speculative decoding."
    )
    prefill_seconds: float = option(0.0, _number, "Duration of every prefill.")
    prefill_tokens_per_second: float = option(
        0.0, _number, "Additional prefill time, as prompt tokens per second. 0: no additional time."
    )
    context_tokens: int = option(8192, parse_positive, "Maximum number of tokens of prompt and answer together.")
    answer_tokens: tuple[int, ...] = option(
        (170,),
        _schedule,
        "Length of answers, including the end-of-sequence token. With several values, such as 40,170, it depends on "
        "the prompt.",
    )
    load_seconds: float = option(0.0, _number, "Duration of the start.")
    fail_after_tokens: int = option(0, parse_count, "Every request fails after this many generated tokens. 0: never.")
    die_after_steps: int = option(0, parse_count, "The engine dies after this many steps. 0: never.")
    stall_after_steps: int = option(
        0, parse_count, "The engine hangs after this many steps, and ignores even aborts. 0: never."
    )
