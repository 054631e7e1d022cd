"""Remembers which failures were logged with their stack trace recently, so that each is logged only once."""

import time
from types import TracebackType

_SECONDS = 10.0
_MAX_KINDS = 100

_Kind = tuple[type[BaseException], type[BaseException], str, int]


class Stacks:
    """The kinds of errors whose stack trace was logged recently."""

    def __init__(self) -> None:
        self._until: dict[_Kind, float] = {}

    def is_new(self, error: BaseException) -> bool:
        """Whether no error of this kind, raised at the same place, was passed to this method in the last 10 seconds."""
        now = time.monotonic()
        self._until = {kind: until for kind, until in self._until.items() if until > now}
        kind = _kind(error)
        if kind in self._until:
            return False
        if len(self._until) < _MAX_KINDS:
            self._until[kind] = now + _SECONDS
        return True


def _kind(error: BaseException) -> _Kind:
    cause = error.__cause__ or error
    return type(error), type(cause), *_place(cause.__traceback__)


def _place(trace: TracebackType | None) -> tuple[str, int]:
    """The file and line where an error was raised."""
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
