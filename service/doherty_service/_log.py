"""JSON lines on standard error, one an event."""

import json
import logging
import sys
from datetime import UTC, datetime


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
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: str) -> None:
    """Sends everything of `level` and above to standard error; libraries only what they warn of."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("doherty").setLevel(level.upper())


def log_event(event: str, **fields: object) -> None:
    """Logs something that happened to the server as a whole."""
    logging.getLogger("doherty.server").info(event, extra={"fields": fields})


def log_warning(event: str, **fields: object) -> None:
    """Logs something that may become a trouble."""
    logging.getLogger("doherty.server").warning(event, extra={"fields": fields})


def log_error(event: str, **fields: object) -> None:
    """Logs something that somebody should look after."""
    logging.getLogger("doherty.server").error(event, extra={"fields": fields})
