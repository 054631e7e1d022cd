"""Makes sure that vLLM's processes, which occupy the GPU, end with their server.

vLLM's EngineCore does not watch its parent process. If the server is killed, or exits by `os._exit` because its engine
hangs, the EngineCore would continue to run. So a small process waits for the end of the server, and then ends all
processes that have the server's mark in their environment. Only vLLM's processes inherit the mark.

Run as a program (`python _guard.py MARK`), this file is that small process. It waits until its standard input ends.
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
_CHECK_SECONDS = 0.05


class Guard:
    """The mark of one engine's processes, and the process that ends them."""

    def __init__(self) -> None:
        """Starts the small process."""
        self._mark = f"{_VARIABLE}={uuid.uuid4()}"
        # In its own session, so that it does not get a terminal's Ctrl-C; with `-I -S`, so that it stays small.
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Gives the mark to all processes that are started in this block."""
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
        """Ends the remaining processes, by force after some seconds. Blocks until then. May be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def _marked(mark: str) -> list[int]:
    """The processes that were started with the mark in their environment."""
    processes: list[int] = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # the process may have ended, or belong to another user
            if folder.name.isdecimal() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                processes.append(int(folder.name))
    return processes


def _send(number: signal.Signals, processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _end(mark: str) -> None:
    """Ends all processes with the mark, at first with SIGTERM, then with SIGKILL."""
    processes = _marked(mark)
    _send(signal.SIGTERM, processes)
    ends_at = time.monotonic() + _GRACE_SECONDS
    while processes and time.monotonic() < ends_at:
        time.sleep(_CHECK_SECONDS)
        processes = _marked(mark)
    _send(signal.SIGKILL, processes)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _end(sys.argv[1])
