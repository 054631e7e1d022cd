"""JSON lines on standard error, one an event."""

import asyncio
import json
import logging
import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TextIO

_GATHER_SECONDS = 0.005
"""How long lines wait for others: each write lets other threads in, which costs more than the line itself."""

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class _GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of an event loop together: those of information within milliseconds, all others at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line in, under the handler's lock."""
        loop = asyncio._get_running_loop()  # noqa: SLF001 - documented; get_running_loop raises in other threads
        if loop is None or record.levelno > logging.INFO:
            self._write_gathered()
            super().emit(record)
            return
        if not self._lines:
            loop.call_later(_GATHER_SECONDS, self.flush)
        self._lines.append(self.format(record))

    def flush(self) -> None:
        """Writes what has been gathered."""
        with self.lock or nullcontext():
            self._write_gathered()
            super().flush()

    def _write_gathered(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self.stream.write("\n".join([*lines, ""]))


def set_up_logging(level: str) -> None:
    """Sends everything of `level` and above to standard error; libraries only what they warn of."""
    handler = _GatheringHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("doherty").setLevel(level.upper())
    # No line tells what records would be given besides; the switches are those of logging's own guide to optimization.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001


def log_event(event: str, **fields: object) -> None:
    """Logs something that happened to the server as a whole."""
    logging.getLogger("doherty.server").info(event, extra={"fields": fields})


def log_warning(event: str, **fields: object) -> None:
    """Logs something that may become a trouble."""
    logging.getLogger("doherty.server").warning(event, extra={"fields": fields})


def log_error(event: str, **fields: object) -> None:
    """Logs something that somebody should look after."""
    logging.getLogger("doherty.server").error(event, extra={"fields": fields})
