"""What the latency of the last minutes was, and what was counted and measured since the server started."""

import time
from collections import Counter, defaultdict
from enum import StrEnum

from doherty_service.telemetry._causes import AbortCause
from doherty_service.telemetry._histogram import Histogram
from doherty_service.telemetry._record import OTHER_RPC, RequestRecord
from doherty_service.telemetry._window import Outcome, RollingWindow, Snapshot, Tally, is_in_time

_FAULTS = frozenset({"INTERNAL", "UNKNOWN"})
"""Statuses that mean a fault of the server."""


class TokenKind(StrEnum):
    """Which tokens are counted."""

    PROMPT = "prompt"
    """Without those of a held part."""
    OUTPUT = "output"
    """Delivered, also of answers that were not completed."""
    CACHED = "cached"
    """Those that the model had to read and that were still in the KV cache."""


class LatencyRecorder:
    """Keeps how every request ended for a rolling window, and counts all calls since the server started.

    A request is taken in at its end; nothing here is touched while tokens flow.
    """

    def __init__(self, window: float) -> None:
        """`window` is in seconds."""
        self.started = time.monotonic()
        self.aborts: Counter[AbortCause] = Counter()
        self.refusals: Counter[str] = Counter()
        """By the reason that the caller was told."""
        self.engine_restarts = 0
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Calls that have ended, by rpc, status and the name of the key. Of a MultiplexGenerate, its requests count."""
        self.tokens: Counter[tuple[TokenKind, str]] = Counter()
        """By kind and the name of the key."""
        self.durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """To the terminal status, by rpc and status."""
        self.spans: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """By the name of the span, as `RequestRecord.spans` has it, and rpc; "inter_token": between messages."""
        self.slot_frees: dict[AbortCause | None, Histogram] = defaultdict(Histogram)
        """How long the engine's slot stayed taken after an abort, by cause."""
        self.totals = Tally()
        """What ended since the server started."""
        self.answered = 0
        """Requests for an answer that ended OK."""
        self.failed = 0
        """Requests that were owed an answer, whose callers stayed, and that got no whole one."""
        self.first_tokens: Counter[bool] = Counter()
        """Requests that were owed a first token, by whether it came within the threshold."""
        self.loop_lag = Histogram()
        """By how much a timer of the event loop was late."""
        self._window = RollingWindow(window)

    def finish(self, record: RequestRecord) -> None:
        """Takes in a request that has ended; its status says how."""
        rpc, key, status = record.rpc, record.caller.name, record.status
        if not record.has_requests or status in _FAULTS:  # else its requests count, and not the RPC that brought them
            self.requests[rpc, status, key] += 1
        if record.abort_cause is not None:
            self.aborts[record.abort_cause] += 1
        if rpc != OTHER_RPC and not record.carries_requests:  # these last for hours, as a health watch does
            self.durations[rpc, status].observe(record.elapsed())
        outcome, is_answer = Outcome(status, record.reason, key), record.is_answer
        self.totals.add(outcome, is_answer=is_answer)
        self._window.add(record, outcome, is_answer=is_answer)
        if not is_answer:
            return
        self._count_answer(record, outcome)
        if record.prompt_tokens is not None:
            self.tokens[TokenKind.PROMPT, key] += record.prompt_tokens
        self.tokens[TokenKind.OUTPUT, key] += record.output_tokens
        if record.cached_tokens is not None:
            self.tokens[TokenKind.CACHED, key] += record.cached_tokens
        for name, seconds in record.spans():
            if name != "time_to_last_token" or record.summarized is not None:  # an answer cut off has no last token
                self.spans[name, rpc].observe(seconds)
        if record.gaps:
            self.spans["inter_token", rpc].observe_each(record.gaps)

    def _count_answer(self, record: RequestRecord, outcome: Outcome) -> None:
        if outcome.status == "OK":
            self.answered += 1
        elif outcome.is_owed and outcome.status != "CANCELLED":
            self.failed += 1
        if outcome.is_owed:
            self.first_tokens[is_in_time(record)] += 1

    def slot_freed(self, cause: AbortCause | None, seconds: float) -> None:
        """Takes note of how long the engine's slot stayed taken after a request was aborted."""
        self.slot_frees[cause].observe(seconds)

    @property
    def kept(self) -> int:
        """How many requests a snapshot may have to sum up."""
        return self._window.kept

    def snapshot(self, window: float | None = None) -> Snapshot:
        """Sums up the last `window` seconds, or all that is kept; any thread may ask."""
        return self._window.snapshot(window)
