"""Statistics over requests: a rolling window of the last minutes, and counters since the server started."""

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
    """Kinds of tokens that are counted."""

    PROMPT = "prompt"
    """Prompt tokens, without those of `continue_from`."""
    OUTPUT = "output"
    """Delivered tokens, including those of incomplete answers."""
    CACHED = "cached"
    """Input tokens that were still in the KV cache."""


class LatencyRecorder:
    """Collects the statistics of requests.

    A request is added when it ends. While an answer is generated, nothing here is updated.
    """

    def __init__(self, window: float) -> None:
        """`window` is the length of the rolling window, in seconds."""
        self.started = time.monotonic()
        self.aborts: Counter[AbortCause] = Counter()
        self.refusals: Counter[str] = Counter()
        """Refused requests by error reason."""
        self.engine_restarts = 0
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Ended calls by rpc, status and name of the key. A MultiplexGenerate counts by its requests."""
        self.tokens: Counter[tuple[TokenKind, str]] = Counter()
        """Tokens by kind and name of the key."""
        self.durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """Seconds from the receive time to the terminal status, by rpc and status."""
        self.spans: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """Seconds by span (see `RequestRecord.spans`) and rpc. The span "inter_token" is the gap between messages."""
        self.slot_frees: dict[AbortCause | None, Histogram] = defaultdict(Histogram)
        """Seconds from an abort until the engine freed the slot, by cause."""
        self.totals = Tally()
        """Outcomes since the server started."""
        self.answered = 0
        """Requests for an answer that ended OK."""
        self.failed = 0
        """Requests that were owed an answer, were not cancelled, and did not end OK."""
        self.first_tokens: Counter[bool] = Counter()
        """Requests that were owed a first token, by whether it came within the threshold."""
        self.loop_lag = Histogram()
        """Seconds by which a timer of the event loop was late."""
        self._window = RollingWindow(window)

    def finish(self, record: RequestRecord) -> None:
        """Adds a request that has ended."""
        rpc, key, status = record.rpc, record.caller.name, record.status
        if not record.has_requests or status in _FAULTS:  # otherwise only the requests count
            self.requests[rpc, status, key] += 1
        if record.abort_cause is not None:
            self.aborts[record.abort_cause] += 1
        if rpc != OTHER_RPC and not record.carries_requests:  # a MultiplexGenerate or a health watch lasts for hours
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
            if name != "time_to_last_token" or record.summarized is not None:  # only complete answers have a last token
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
        """Records the seconds from the abort of a request until the engine freed its slot."""
        self.slot_frees[cause].observe(seconds)

    @property
    def window_size(self) -> int:
        """The number of requests in the rolling window."""
        return self._window.size

    def snapshot(self, window: float | None = None) -> Snapshot:
        """Summarizes the last `window` seconds, or the whole rolling window. Thread-safe."""
        return self._window.snapshot(window)
