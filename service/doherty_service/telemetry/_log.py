"""JSON lines on standard error, one per event, written by a thread: a log that nobody reads never stops the server."""

import json
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime

from doherty_service.telemetry._foreign import ForeignRecords, is_own
from doherty_service.telemetry._origin import origin

_GATHER_SECONDS = 0.01
"""How long INFO lines wait for others, so that they leave in one write."""

_MOST_CHARACTERS = 4 << 20
"""Of lines that wait to be written. Beyond that they are dropped and counted."""

_FLUSH_SECONDS = 1.0
"""How long the end of the process waits for the last lines."""

_RETRY_SECONDS = 0.1
"""The pause after a write that failed, for example on a full disk."""

_MOST_TEXT = 4_000
"""Characters of one field."""

_MOST_EXCEPTION = 16_000
"""Characters of a traceback, of which the last are kept: they say what happened."""

_MOST_ITEMS = 20

# Only ASCII: what else drives a terminal, or turns the direction of its text, is escaped.
_encode = json.JSONEncoder(ensure_ascii=True, default=str).encode


class LogWriter:
    """Writes lines to a file descriptor from a thread of its own. Any thread may add lines."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        """Lines that were not written: the reader was too slow, or writing failed."""
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._waiting = 0
        self._unreported = 0
        self._is_writing = False
        self._lock = threading.Lock()
        self._has_lines = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str, *, urgent: bool = False) -> None:
        """Adds a line, which is written within milliseconds, or at once if it is `urgent`; never waits for a reader."""
        with self._lock:
            if self._waiting + len(line) > _MOST_CHARACTERS:
                self._drop(1)
                return
            self._lines.append(line)
            self._waiting += len(line)
            is_first = len(self._lines) == 1
        if urgent:
            self._hurry.set()
        if is_first:
            self._has_lines.set()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Waits until all lines are written, but not longer than `seconds`."""
        latest = time.monotonic() + seconds
        while (self._lines or self._is_writing) and time.monotonic() < latest:
            self._hurry.set()
            time.sleep(0.001)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unreported += lines

    def _run(self) -> None:
        while True:
            self._has_lines.wait()
            self._hurry.wait(_GATHER_SECONDS)
            self._hurry.clear()
            with self._lock:
                self._has_lines.clear()
                self._is_writing = True
                lines, self._lines, self._waiting = self._lines, deque(), 0
                unreported, self._unreported = self._unreported, 0
            if unreported:
                lines.appendleft(format_line("warning", "log_lines_dropped", {"lines": unreported}))
            try:
                self._write("".join(lines).encode(errors="replace"))
            except (OSError, ValueError):
                with self._lock:
                    self._drop(len(lines))
                    self._unreported += max(0, unreported - 1)  # the line that reported them is among the lost
                self._hurry.wait(_RETRY_SECONDS)
            self._is_writing = False

    def _write(self, data: bytes) -> None:
        """Writes all of `data`, and waits for the reader where it must.

        Raises:
            OSError: the descriptor is closed, its reader is gone, or the disk is full.
            ValueError: `select` cannot wait for the descriptor.
        """
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that shares the pipe has made it non-blocking
                select.select([], [self._descriptor], [])


def _bounded(value: object) -> object:
    """A value of a field, cut to what a line may hold."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_bounded(one) for one in value[:_MOST_ITEMS]]
    text = str(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."


def format_line(level: str, event: str, fields: dict[str, object]) -> str:
    """One line of the log."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return _encode({"time": now, "level": level, "event": event, **origin.fields, **fields}) + "\n"


class _Handler(logging.Handler):
    """Hands what is logged through `logging` to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._foreign = ForeignRecords()

    def emit(self, record: logging.LogRecord) -> None:
        event = "library"
        if is_own(record):
            event = record.getMessage()[:_MOST_TEXT]
            fields = {name: _bounded(value) for name, value in getattr(record, "fields", {}).items()}
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)[-_MOST_EXCEPTION:]
        else:
            fields = self._foreign.fields(record)
        self._writer.put(format_line(record.levelname.lower(), event, fields), urgent=record.levelno > logging.INFO)

    def flush(self) -> None:
        self._writer.flush()


def set_up_logging(level: str) -> LogWriter:
    """Sends everything of `level` and above to standard error; of libraries, warnings and above."""
    writer = LogWriter(_own_standard_error())
    root = logging.getLogger()
    root.handlers[:] = [_Handler(writer)]
    root.setLevel(logging.WARNING)
    logging.getLogger("doherty").setLevel(level.upper())
    # No line tells where it was logged; these are the switches of logging's own guide to optimization.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001
    return writer


def _own_standard_error() -> int:
    """A descriptor of standard error for the writer; that of everybody else becomes non-blocking.

    gRPC's core writes to descriptor 2 from its own threads, if GRPC_VERBOSITY lets it, and engines do. On a pipe that
    nobody reads that would block them. Opening the pipe anew changes the mode for this process alone.
    """
    try:
        own = os.dup(2)
    except OSError:  # the server was started without standard error
        return os.open(os.devnull, os.O_WRONLY)
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(2).st_mode):  # a file or a terminal does not block for long
        try:
            unblocked = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # there is no /proc
            return own
        os.dup2(unblocked, 2)
        os.close(unblocked)
    return own


def log_event(event: str, **fields: object) -> None:
    """Logs something that happened to the server as a whole."""
    logging.getLogger("doherty.server").info(event, extra={"fields": fields})


def log_warning(event: str, **fields: object) -> None:
    """Logs something that may become a problem."""
    logging.getLogger("doherty.server").warning(event, extra={"fields": fields})


def log_error(event: str, *, cause: BaseException | None = None, **fields: object) -> None:
    """Logs something that an operator should look into; with the traceback of its `cause`."""
    logging.getLogger("doherty.server").error(event, extra={"fields": fields}, exc_info=cause)
