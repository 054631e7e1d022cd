"""Which failures have been told with their stack of late: what fails for many requests at once is told once."""

import time
from types import TracebackType

_SECONDS = 10.0
_MOST_KINDS = 100

_Kind = tuple[type[BaseException], type[BaseException], str, int]


class Stacks:
    """Knows the kinds of errors whose stack is in the log already."""

    def __init__(self) -> None:
        self._until: dict[_Kind, float] = {}

    def is_new(self, error: BaseException) -> bool:
        """Whether no error of this kind, raised at the same place, was asked about within the last ten seconds."""
        now = time.monotonic()
        self._until = {kind: until for kind, until in self._until.items() if until > now}
        kind = _kind(error)
        if kind in self._until:
            return False
        if len(self._until) < _MOST_KINDS:
            self._until[kind] = now + _SECONDS
        return True


def _kind(error: BaseException) -> _Kind:
    cause = error.__cause__ or error
    return type(error), type(cause), *_place(cause.__traceback__)


def _place(trace: TracebackType | None) -> tuple[str, int]:
    """Where an error was raised."""
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
