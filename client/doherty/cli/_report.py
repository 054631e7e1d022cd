"""The report of the reference benchmark."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from doherty import Generation, ModelInfo
from doherty.cli._load._statistics import percentile

THRESHOLD: Final = 0.4
"""The Doherty threshold in seconds."""

REFERENCE_P50: Final = 0.21117
REFERENCE_P90: Final = 0.88327
"""Times to last token in seconds, as published for the reference: LLaMA 3 8B on one H100 with TensorRT-LLM, fast."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A question and its answer, with the time until the client had received all of it."""

    question: str
    generation: Generation
    client_total: float
    """In seconds."""


FIGURES: Final[dict[str, Callable[[Measurement], float | None]]] = {
    "time_to_last_token": lambda measured: measured.generation.timings.time_to_last_token,
    "client_total": lambda measured: measured.client_total,
    "time_to_first_token": lambda measured: measured.generation.timings.time_to_first_token,
    "time_per_output_token": lambda measured: measured.generation.timings.time_per_output_token,
}
"""The reported figures. The server measures all of them except the client's total."""

THRESHOLD_FIGURES: Final = ("time_to_first_token", "time_to_last_token")


def percentiles(measurements: Sequence[Measurement]) -> dict[str, tuple[float | None, float | None]]:
    """Returns the p50 and the p90 of each figure, over the answers for which it is known."""
    columns = {
        name: [value for measured in measurements if (value := figure(measured)) is not None]
        for name, figure in FIGURES.items()
    }
    return {name: (percentile(values, 0.5), percentile(values, 0.9)) for name, values in columns.items()}


def within_threshold(times: Iterable[float | None]) -> int:
    """Counts the times that are known and within the threshold."""
    return sum(time is not None and time <= THRESHOLD for time in times)


def report(measurements: Sequence[Measurement], model: ModelInfo, max_output_tokens: int | None) -> dict[str, object]:
    """Returns the report for --json. Times are in seconds."""
    return {
        "model": model.model,
        "engine": model.engine,
        "engine_version": model.engine_version,
        "server_version": model.server_version,
        "max_output_tokens": max_output_tokens,
        "answers": [_answer(measured) for measured in measurements],
        "percentiles": {name: {"p50": p50, "p90": p90} for name, (p50, p90) in percentiles(measurements).items()},
        "threshold": THRESHOLD,
        "within_threshold": {name: within_threshold(map(FIGURES[name], measurements)) for name in THRESHOLD_FIGURES},
    }


def _answer(measured: Measurement) -> dict[str, object]:
    generation = measured.generation
    return {
        "question": measured.question,
        "answer": generation.text,
        "finish_reason": generation.finish_reason,
        "output_tokens": generation.usage.output_tokens,
        "timings": asdict(generation.timings),
        "client_total": measured.client_total,
    }
