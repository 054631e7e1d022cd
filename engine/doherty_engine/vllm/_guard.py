"""Sees to it that vLLM's processes end with their server, however that ends: they hold the GPU.

vLLM's EngineCore does not watch its parent. A server that is killed, or leaves by `os._exit` because its engine hangs,
would leave it behind. So a small process waits for the end of the server, and then ends what carries the server's mark
in its environment: vLLM's processes inherit it, and nothing else has it.

As a program (`python _guard.py MARK`) it is that process: it waits until its standard input ends.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_VARIABLE = "_DOHERTY_ENGINE"
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class Guard:
    """The mark of one engine's processes, and who ends them."""

    def __init__(self) -> None:
        """Starts the process that waits."""
        self._mark = f"{_VARIABLE}={uuid.uuid4()}"
        # A session of its own: a Ctrl-C in the terminal is the server's. Python's own modules alone: it stays small.
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Gives the mark to every process that is started in this block."""
        name, _, value = self._mark.partition("=")
        os.environ[name] = value
        try:
            yield
        finally:
            del os.environ[name]

    def terminate(self) -> None:
        """Asks the engine's processes to end."""
        _send(signal.SIGTERM, _marked(self._mark))

    def close(self) -> None:
        """Ends those that are still there, by force after some seconds; blocks until then. May be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def _marked(mark: str) -> list[int]:
    """The processes that were started with the mark in their environment."""
    processes: list[int] = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # processes come and go, and those of others cannot be read
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                processes.append(int(folder.name))
    return processes


def _send(number: signal.Signals, processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _end(mark: str) -> None:
    """Ends all processes with the mark: those that do not end when asked to are killed."""
    left = _marked(mark)
    _send(signal.SIGTERM, left)
    ends_at = time.monotonic() + _GRACE_SECONDS
    while left and time.monotonic() < ends_at:
        time.sleep(_LOOK_SECONDS)
        left = _marked(mark)
    _send(signal.SIGKILL, left)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _end(sys.argv[1])
