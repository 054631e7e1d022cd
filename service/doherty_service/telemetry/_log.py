"""The log: one JSON line per event on standard error. A thread writes it, so a slow reader never blocks the server."""

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
"""INFO lines are batched for this long, so that several are written at once."""

_MAX_WAITING_CHARACTERS = 4 << 20
"""Maximum number of characters that wait to be written. Lines beyond that are dropped and counted."""

_FLUSH_SECONDS = 1.0
"""How long the process waits at its end for the last lines to be written."""

_RETRY_SECONDS = 0.1
"""The pause after a failed write, for example on a full disk."""

_MAX_TEXT = 4_000
"""Maximum number of characters of one field."""

_MAX_EXCEPTION = 16_000
"""Maximum number of characters of a traceback. The end is kept, because it contains the error."""

_MAX_ITEMS = 20

# Everything but ASCII is escaped, because control characters could manipulate the terminal of whoever reads the log.
_encode = json.JSONEncoder(ensure_ascii=True, default=str).encode


class LogWriter:
    """Writes lines to a file descriptor from a thread of its own. Any thread may add lines."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        """Number of lines that were not written, because the reader was too slow or a write failed."""
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._waiting_characters = 0
        self._unreported = 0
        self._is_writing = False
        self._lock = threading.Lock()
        self._has_lines = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str, *, urgent: bool = False) -> None:
        """Adds a line without blocking. It is written within 10 ms, or immediately if it is `urgent`."""
        with self._lock:
            if self._waiting_characters + len(line) > _MAX_WAITING_CHARACTERS:
                self._drop(1)
                return
            self._lines.append(line)
            self._waiting_characters += len(line)
            is_first = len(self._lines) == 1
        if urgent:
            self._hurry.set()
        if is_first:
            self._has_lines.set()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> None:
        """Waits until all lines are written, but no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while (self._lines or self._is_writing) and time.monotonic() < deadline:
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
                lines, self._lines, self._waiting_characters = self._lines, deque(), 0
                unreported, self._unreported = self._unreported, 0
            if unreported:
                lines.appendleft(format_line("warning", "log_lines_dropped", {"lines": unreported}))
            try:
                self._write("".join(lines).encode(errors="replace"))
            except (OSError, ValueError):
                with self._lock:
                    self._drop(len(lines))
                    self._unreported += max(0, unreported - 1)  # `lines` includes the line that reported them
                self._hurry.wait(_RETRY_SECONDS)
            self._is_writing = False

    def _write(self, data: bytes) -> None:
        """Writes all of `data`, and waits for the reader if necessary.

        Raises:
            OSError: The descriptor is closed, its reader has exited, or the disk is full.
            ValueError: `select` cannot wait for the descriptor.
        """
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process that shares the pipe made it non-blocking
                select.select([], [self._descriptor], [])


def _bounded(value: object) -> object:
    """Shortens the value of a field if it is too long."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value[:_MAX_ITEMS]]
    text = str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def format_line(level: str, event: str, fields: dict[str, object]) -> str:
    """Formats one line of the log."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return _encode({"time": now, "level": level, "event": event, **origin.fields, **fields}) + "\n"


class _Handler(logging.Handler):
    """Passes records of `logging` to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer
        self._foreign = ForeignRecords()

    def emit(self, record: logging.LogRecord) -> None:
        event = "library"
        if is_own(record):
            event = record.getMessage()[:_MAX_TEXT]
            fields = {name: _bounded(value) for name, value in getattr(record, "fields", {}).items()}
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)[-_MAX_EXCEPTION:]
        else:
            fields = self._foreign.fields(record)
        self._writer.put(format_line(record.levelname.lower(), event, fields), urgent=record.levelno > logging.INFO)

    def flush(self) -> None:
        self._writer.flush()


def set_up_logging(level: str) -> LogWriter:
    """Logs Doherty's events of `level` and above, and libraries' warnings and errors, to standard error."""
    writer = LogWriter(_own_standard_error())
    root = logging.getLogger()
    root.handlers[:] = [_Handler(writer)]
    root.setLevel(logging.WARNING)
    logging.getLogger("doherty").setLevel(level.upper())
    return writer


def _own_standard_error() -> int:
    """Returns a descriptor of standard error for the writer, and makes descriptor 2 non-blocking if it is a pipe.

    Engines, and gRPC's core depending on GRPC_VERBOSITY, write to descriptor 2 from their own threads, which would
    block on a pipe that nobody reads. Opening the pipe again changes the mode for this process only.
    """
    try:
        own = os.dup(2)
    except OSError:  # the server was started without standard error
        return os.open(os.devnull, os.O_WRONLY)
    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(2).st_mode):  # files and terminals do not block for long
        try:
            non_blocking = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # /proc is not mounted
            return own
        os.dup2(non_blocking, 2)
        os.close(non_blocking)
    return own


def log_event(event: str, **fields: object) -> None:
    """Logs an event that concerns the whole server."""
    logging.getLogger("doherty.server").info(event, extra={"fields": fields})


def log_warning(event: str, **fields: object) -> None:
    """Logs something that may become a problem."""
    logging.getLogger("doherty.server").warning(event, extra={"fields": fields})


def log_error(event: str, *, cause: BaseException | None = None, **fields: object) -> None:
    """Logs something that an operator should look into, with the traceback of `cause`."""
    logging.getLogger("doherty.server").error(event, extra={"fields": fields}, exc_info=cause)
