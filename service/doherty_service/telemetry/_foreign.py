"""What libraries log: without what a stranger has sent, short, and not too often."""

import logging
import re
import threading
import traceback

from doherty_service.telemetry._rate import LineLimit

_OWN = "doherty"
_GRPC = "grpc"
_MOST_TEXT = 1_000
_MOST_EXCEPTION = 16_000
_BURST = 20
_PAUSE_SECONDS = 60.0
_PLAIN_WORDS = re.compile(r"[A-Za-z][A-Za-z ]{0,80}")


def is_own(record: logging.LogRecord) -> bool:
    """Whether a record is one of ours."""
    return record.name.startswith(_OWN)


class ForeignRecords:
    """Makes the fields of a line of what a library logs, and pauses loggers that log too much."""

    def __init__(self) -> None:
        self._limits: dict[str, LineLimit] = {}
        """By the name of the logger."""

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What is told of a record."""
        fields: dict[str, object] = {"logger": record.name}
        if record.name.partition(".")[0] == _GRPC:
            # It quotes metadata and names of methods, and with them keys and whatever a stranger sends: only the words
            # before a quotation, the kind of the error and the place in the code are told.
            found = _PLAIN_WORDS.match(str(record.msg))
            fields["message"] = found[0].strip() if found else ""
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = _where(record.exc_info[1])
        else:
            fields["message"] = record.getMessage()[:_MOST_TEXT]
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)[-_MOST_EXCEPTION:]
        limit = self._limits.setdefault(record.name, LineLimit(_BURST, 1 / _PAUSE_SECONDS))
        if not limit.allows():
            _pause(logging.getLogger(record.name))
            fields["paused_seconds"] = _PAUSE_SECONDS
        return fields


def _pause(logger: logging.Logger) -> None:
    """Silences a logger for a while, at its source: a record that nobody sees costs the event loop as much."""
    level = logger.level
    if level > logging.CRITICAL:  # it is paused: this record was under way
        return
    logger.setLevel(logging.CRITICAL + 1)
    timer = threading.Timer(_PAUSE_SECONDS, logger.setLevel, [level])
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # there is no thread to be had
        logger.setLevel(level)


def _where(error: BaseException) -> str:
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__}"
