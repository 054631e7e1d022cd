"""The log lines of the SDK. Their fields have the same names as in the server's log."""

import logging
import os
from time import perf_counter
from typing import TYPE_CHECKING, Final, TextIO

from doherty._core._trace import NO_TRACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doherty._core._status import Status
    from doherty._core._trace import Trace

_LOG: Final = logging.getLogger("doherty")

_LEVELS: Final = ("debug", "info", "warning", "error")


class AttemptLog:
    """Writes one line for each attempt of a call, at level INFO if another attempt follows, else at level DEBUG."""

    request_id: str | None = None
    """The id of the running attempt in the server's log; before that is known, the id that the caller chose."""
    _rpc = ""
    _target = ""
    _attempt = 1
    _began = 0.0
    _trace_ids: "Mapping[str, str]" = NO_TRACE.ids

    def begin(self, rpc: str, target: str, attempt: int, request_id: str | None, trace: "Trace") -> None:
        """Starts the line of the next attempt."""
        self.request_id = request_id or None
        self._rpc = rpc
        self._target = target
        self._attempt = attempt
        self._trace_ids = trace.ids
        self._began = perf_counter()

    def succeed(self) -> None:
        """Logs that the attempt was the last one and ended with OK."""
        if _LOG.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, "OK", None, "")

    def cancel(self, reason: str | None) -> None:
        """Logs that the client ended the attempt, because the caller cancelled it or a timeout (`reason`) expired."""
        if _LOG.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, "CANCELLED", reason, " (by the client)")

    def fail(self, status: "Status", pause: float | None) -> None:
        """Logs that the attempt failed.

        Args:
            status: The status of the attempt.
            pause: The seconds until the next attempt; None if none follows.
        """
        level = logging.DEBUG if pause is None else logging.INFO
        if not _LOG.isEnabledFor(level):
            return
        self.request_id = status.request_id or self.request_id
        details = f" ({status.message})"
        if pause is not None:
            details += f", attempt {self._attempt + 1} follows in {pause:.3f} s"
        self._write(level, status.code.name, status.reason, details, pause=pause)

    def _write(self, level: int, code: str, reason: str | None, details: str, *, pause: float | None = None) -> None:
        seconds = perf_counter() - self._began
        fields = {
            "rpc": self._rpc,
            "target": self._target,
            "request_id": self.request_id,
            "attempt": self._attempt,
            "code": code,
            "reason": reason,
            "duration_ms": round(seconds * 1000, 3),
            "pause_ms": None if pause is None else round(pause * 1000, 3),
            "trace_id": None,
            "span_id": None,
            **self._trace_ids,
        }
        request = f", request {self.request_id}" if self.request_id else ""
        text = "%s at %s: %s after %.3f s%s%s"
        _LOG.log(level, text, self._rpc, self._target, code, seconds, request, details, extra=fields)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to standard error as long as the program has no handler of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if all(handler is self for handler in (*_LOG.handlers, *logging.getLogger().handlers)):
            super().emit(record)


class _OneLine(logging.Formatter):
    """Escapes control characters: a server chooses a part of the text, and a terminal would obey them."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        text = super().formatMessage(record)
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _follow_environment() -> None:
    """Sets the level to the value of the environment variable DOHERTY_LOG."""
    level = os.environ.get("DOHERTY_LOG")
    if not level:
        return
    if level.lower() not in _LEVELS:
        _LOG.warning("DOHERTY_LOG is one of %s, not %r", ", ".join(_LEVELS), level)
        return
    _LOG.setLevel(level.upper())
    handler = _StandardError()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _LOG.addHandler(handler)


_follow_environment()
