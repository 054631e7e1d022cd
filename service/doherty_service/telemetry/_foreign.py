"""What libraries log: without what a stranger has sent, short, and not too often."""

import logging
import re
import traceback

from doherty_service.telemetry._rate import LineLimit

_OWN = "doherty"
_GRPC = "grpc"
_MOST_TEXT = 1_000
_BURST = 20
_PER_SECOND = 0.2
_PLAIN_WORDS = re.compile(r"[A-Za-z][A-Za-z ]{0,80}")


def is_own(record: logging.LogRecord) -> bool:
    """Whether a record is one of ours."""
    return record.name.partition(".")[0].startswith(_OWN)


class ForeignRecords:
    """Makes the fields of a line of what a library logs, or nothing if it logs too much."""

    def __init__(self) -> None:
        self._limits: dict[str, LineLimit] = {}
        """By the name of the library."""

    def fields(self, record: logging.LogRecord) -> dict[str, object] | None:
        """What is told of a record; None if there were too many of this library."""
        library = record.name.partition(".")[0]
        limit = self._limits.setdefault(library, LineLimit(_BURST, _PER_SECOND))
        if not limit.allows():
            return None
        fields: dict[str, object] = {"logger": record.name}
        if library == _GRPC:
            # It quotes metadata and names of methods, and with them keys and whatever a stranger sends: only the words
            # before a quotation, the kind of the error and the place in the code are told.
            found = _PLAIN_WORDS.match(str(record.msg))
            fields["message"] = found[0].strip() if found else ""
            if record.exc_info and record.exc_info[1] is not None:
                fields["exception"] = _where(record.exc_info[1])
        else:
            fields["message"] = record.getMessage()[:_MOST_TEXT]
            if record.exc_info:
                fields["exception"] = logging.Formatter().formatException(record.exc_info)
        if suppressed := limit.take_suppressed():
            fields["suppressed"] = suppressed
        return fields


def _where(error: BaseException) -> str:
    return f"{''.join(traceback.format_tb(error.__traceback__))}{type(error).__name__}"
