"""Detects changes of files."""

import os
from collections.abc import Sequence
from pathlib import Path

_State = list[tuple[int, ...] | None]


class FileWatch:
    """Detects whether any of several files has changed since the last check.

    It compares the results of `stat`, so a check takes microseconds. It follows symbolic links, such as those that
    Kubernetes replaces when it updates a secret. A new owner or mode counts as a change, because it may make a file
    readable.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._known: _State | None = self._state()

    def changed(self) -> bool:
        """Whether a file has changed since the last call, or since this object was created."""
        before, self._known = self._known, self._state()
        return before != self._known

    def mark_changed(self) -> None:
        """Makes the next call of `changed` return True. For use after a failed read that may succeed later."""
        self._known = None

    def _state(self) -> _State:
        return [_stat(path) for path in self._paths]


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes twice as long
    except OSError:
        return None
    # Two changes within the same tick of the kernel's clock have the same time.
    return status.st_ctime_ns, status.st_ino, status.st_size, status.st_mode, status.st_uid, status.st_gid
