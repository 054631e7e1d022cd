"""Filters what libraries log: removes what callers sent, shortens long messages, and pauses frequent loggers."""

import logging
import re
import threading
import traceback

from doherty_service.telemetry._rate import LineLimit

_OWN = "doherty"
_GRPC = "grpc"
_MAX_TEXT = 1_000
_MAX_EXCEPTION = 16_000
_BURST = 20
_PAUSE_SECONDS = 60.0
_PLAIN_WORDS = re.compile(r"[A-Za-z][A-Za-z ]{0,80}")


def is_own(record: logging.LogRecord) -> bool:
    """Whether Doherty itself logged the record."""
    return record.name.startswith(_OWN)


class ForeignRecords:
    """Converts the log records of libraries to fields of a log line, and pauses loggers that log too much."""

    def __init__(self) -> None:
        self._limits: dict[str, LineLimit] = {}
        """By the name of the logger."""

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """Returns the fields of a record, and pauses its logger if it exceeds the limit."""
        fields: dict[str, object] = {"logger": record.name}
        if record.name.partition(".")[0] == _GRPC:
            # gRPC quotes metadata and method names, which can contain keys and arbitrary text from callers. We log only
            # the words before the quotation, the type of the error and its traceback.
            words = _PLAIN_WORDS.match(str(record.msg))
            fields["message"] = words[0].strip() if words else ""
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = _traceback_and_type(record.exc_info[1])
        else:
            fields["message"] = record.getMessage()[:_MAX_TEXT]
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)[-_MAX_EXCEPTION:]
        limit = self._limits.setdefault(record.name, LineLimit(_BURST, 1 / _PAUSE_SECONDS))
        if not limit.allows():
            _pause(logging.getLogger(record.name))
            fields["paused_seconds"] = _PAUSE_SECONDS
        return fields


def _pause(logger: logging.Logger) -> None:
    """Silences a logger for a while by its level, because a record that is filtered later would cost as much time."""
    level = logger.level
    if level > logging.CRITICAL:  # already paused
        return
    logger.setLevel(logging.CRITICAL + 1)
    timer = threading.Timer(_PAUSE_SECONDS, logger.setLevel, [level])
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no thread could be started
        logger.setLevel(level)


def _traceback_and_type(error: BaseException) -> str:
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__}"
