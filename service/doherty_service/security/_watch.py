"""Notices that files have changed."""

import os
from collections.abc import Sequence
from pathlib import Path

_State = list[tuple[int, int, int] | None]


class FileWatch:
    """Whether any of some files is another one than when it was last asked.

    It compares what `stat` tells, so that asking costs microseconds; links are followed, as those that Kubernetes
    swaps when it updates a secret. A new owner or mode is a change, too: it may be what lets a file be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Takes the state of now as known."""
        self._paths = tuple(paths)
        self._known: _State | None = self._state()

    def changed(self) -> bool:
        """Compares with the last time, and takes the state of now as known."""
        before, self._known = self._known, self._state()
        return before != self._known

    def forget(self) -> None:
        """Makes the next question be answered with yes: what was there could not be read, and may be in a moment."""
        self._known = None

    def _state(self) -> _State:
        return [_stat(path) for path in self._paths]


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - Path.stat costs twice as much
    except OSError:
        return None
    return found.st_ctime_ns, found.st_ino, found.st_size
