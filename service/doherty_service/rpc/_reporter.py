"""Reports the begin and the end of every request to traces, metrics, the rolling window and the log."""

import logging
from array import array
from collections.abc import Callable

from doherty_service.rpc._refusal_lines import RefusalLines
from doherty_service.telemetry import (
    OTHER_RPC,
    LatencyRecorder,
    LineLimit,
    Metadata,
    RequestRecord,
    log_warning,
    request_line,
)
from doherty_service.tracing import Tracing

_log = logging.getLogger("doherty.request")

_STRANGERS_BURST = 100
_STRANGERS_PER_SECOND = 10.0
"""Limits of log lines for calls without a valid key: a caller without a key must not fill the log."""


class Reporter:
    """Reports requests to everything that records them."""

    def __init__(
        self, recorder: LatencyRecorder, write_line: Callable[[str], None], tracing: Tracing | None = None
    ) -> None:
        """`write_line` is called with the log line of each request."""
        self._recorder = recorder
        self._write_line = write_line
        self._tracing = tracing
        self._strangers = LineLimit(_STRANGERS_BURST, _STRANGERS_PER_SECOND)
        self._refusals = RefusalLines()

    def begin(self, record: RequestRecord, metadata: Metadata) -> None:
        """Reports that a request has begun."""
        if self._tracing is not None:
            self._tracing.begin(record, metadata)

    def end(self, record: RequestRecord, status: str) -> None:
        """Reports that a request has ended, with the name of its status."""
        record.status = status
        record.gaps = array("d", sorted(record.gaps))  # sorted once, used several times
        self._recorder.finish(record)
        if self._tracing is not None:
            self._tracing.end(record)
        # Health checks and reflection are logged at level DEBUG only.
        if not _log.isEnabledFor(logging.DEBUG if record.rpc == OTHER_RPC else logging.INFO):
            return
        if record.is_stranger and not self._strangers.allows():
            return
        if suppressed := self._strangers.take_suppressed():
            log_warning("lines_suppressed", lines=suppressed)
        if not self._refusals.absorb(record):
            self._write_line(request_line(record))

    def flush(self) -> None:
        """Writes log lines that are still being collected."""
        self._refusals.flush()
