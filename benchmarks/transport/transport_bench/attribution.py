"""Finds for every piece of text when the engine generated it and when it reached the caller."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transport_bench.engine_log import CAPACITY, HEADER_BYTES, Kind
from transport_bench.errors import BenchmarkError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_RECORD = np.dtype([("time", "<f8"), ("number", "<u2"), ("characters", "<u2"), ("tokens", "<u2"), ("kind", "<u2")])
_NANOSECOND = 1e-9


@dataclass(frozen=True)
class Border:
    """The clocks at one end of the window, in seconds."""

    time: float
    server_cpu: float
    own_cpu: float


@dataclass(frozen=True)
class Seen:
    """What a caller received. Times are in seconds of `time.monotonic()`."""

    begin: Border
    end: Border
    requests: list[dict[str, Any]]

    @classmethod
    def read(cls, text: str) -> "Seen":
        """Parses the load generator's output."""
        printed = json.loads(text)
        begin, end = (
            Border(**{name: clock * _NANOSECOND for name, clock in printed[which].items()})
            for which in ("begin", "end")
        )
        return cls(begin, end, printed["requests"])


@dataclass(frozen=True)
class Made:
    """The engine's outputs for one request."""

    submitted: float
    times: Floats
    characters: Integers
    tokens: Integers


@dataclass
class Matched:
    """All outputs and requests that reached the caller."""

    made: list[Floats] = field(default_factory=list)
    """When the engine delivered each output."""
    arrived: list[Floats] = field(default_factory=list)
    tokens: list[Integers] = field(default_factory=list)
    first_arrived: list[float] = field(default_factory=list)
    """When each request received its first text."""
    first_added: list[float] = field(default_factory=list)
    """The time to the first text of each request, without the engine's part."""
    ended: list[float] = field(default_factory=list)
    """When each completed request ended."""


def count_records(log: Path) -> int:
    """Returns the number of records so far."""
    with log.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def read_log(log: Path, since: int) -> dict[int, list[Made]]:
    """Returns the engine's outputs since the record `since`, by the number of the stream, in the order of its requests.

    Raises:
        BenchmarkError: There were so many that the first ones are overwritten.
    """
    until = count_records(log)
    if until - since > CAPACITY:
        raise BenchmarkError("The window is too long for the engine's log; make it shorter.")
    ring = np.memmap(log, _RECORD, "r", HEADER_BYTES, (CAPACITY,))
    records = ring[np.arange(since, until) % CAPACITY]
    steps = np.flatnonzero(records["kind"] == Kind.STEP)
    times = records["time"].copy()
    outputs = np.flatnonzero(records["kind"] == Kind.OUTPUT)
    # An output has the time of the step whose record follows; of the very last one that may not be there yet.
    outputs = outputs[outputs < (steps[-1] if len(steps) else 0)]
    times[outputs] = times[steps[np.searchsorted(steps, outputs)]]
    kept = np.sort(np.concatenate([outputs, np.flatnonzero(records["kind"] == Kind.SUBMIT)]))
    records, times = records[kept], times[kept]
    made: dict[int, list[Made]] = defaultdict(list)
    order = np.argsort(records["number"], kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(records["number"][order])) + 1):
        begins = run[records["kind"][run] == Kind.SUBMIT]
        for begin, request in zip(begins, np.split(run, np.searchsorted(run, begins))[1:], strict=True):
            own = request[1:]
            made[int(records["number"][begin])].append(
                Made(
                    float(times[begin]),
                    times[own],
                    records["characters"][own].astype(np.int64),
                    records["tokens"][own].astype(np.int64),
                )
            )
    return made


def match(seen: Seen, made: dict[int, list[Made]]) -> Matched:
    """Finds for each output the message that contained the last part of its text.

    On a busy machine, the last requests of the window before may reach the engine within this window. They are skipped:
    the engine got them before this window's first request of their stream was sent.

    Raises:
        BenchmarkError: The caller did not receive what the engine generated.
    """
    matched = Matched()
    left = {number: iter(requests) for number, requests in made.items()}
    for request in seen.requests:
        sent = request["sent"] * _NANOSECOND
        answers = left.get(request["number"], iter(()))
        answer = next((answer for answer in answers if answer.submitted >= sent), None)
        if answer is not None:
            _match_one(request, answer, matched)
        elif request["times"]:
            raise BenchmarkError("A request got text that no engine made.")
    return matched


def _match_one(request: dict[str, Any], made: Made, matched: Matched) -> None:
    arrivals = np.array(request["times"]) * _NANOSECOND
    if not len(arrivals):
        return
    got = np.cumsum(request["characters"])
    due = np.cumsum(made.characters)
    is_over = request["tokens"] >= 0
    most = due[-1] if len(due) else 0
    if got[-1] > most or (is_over and (got[-1] != most or request["tokens"] != made.tokens.sum())):
        raise BenchmarkError(
            f"A request of stream {request['number']} got {got[-1]} characters for {request['tokens']} tokens, "
            f"and the engine made {most} for {made.tokens.sum()}."
        )
    there = np.flatnonzero((made.characters > 0) & (due <= got[-1]))
    arrived = arrivals[np.searchsorted(got, due[there])]
    if np.any(arrived <= made.times[there]):
        raise BenchmarkError("A text arrived before it was made: the two clocks are not one.")
    matched.made.append(made.times[there])
    matched.arrived.append(arrived)
    tokens = made.tokens[there]
    if is_over:
        tokens[-1] += made.tokens.sum() - tokens.sum()  # the last one may have no text of its own
    matched.tokens.append(tokens)
    matched.first_arrived.append(float(arrived[0]))
    sent = request["sent"] * _NANOSECOND
    matched.first_added.append((made.submitted - sent) + float(arrived[0] - made.times[there[0]]))
    if is_over:
        matched.ended.append(float(arrivals[-1]))
