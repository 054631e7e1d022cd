"""Runs commands in processes that have already imported them, because importing is most of the cost of a command.

The fork server of multiprocessing imports once, and forks a process for each command. Servers are not started in this
way, because in a forked server, calls of a large burst were cancelled for an unknown reason
(tests/service/test_bounds.py).
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Final

# multiprocessing would import the main module, which is pytest, in each process that has not imported it yet.
_MODULES: Final = ("__main__", "doherty.cli", "doherty_service.command")
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(_MODULES))


def run_preloaded(
    module: str, *arguments: str, variables: Mapping[str, str], streams: Sequence[int], seconds: float
) -> int:
    """Runs `python -m MODULE ARGUMENTS` to its end, and returns the exit code, which is negative after a signal.

    Its environment consists of `variables`; `streams` are the descriptors of its stdin, stdout and stderr. Raises
    TimeoutExpired if it runs for more than `seconds`.
    """
    files = [_Descriptor(stream) for stream in streams]
    process = _CONTEXT.Process(target=_run, args=(module, arguments, dict(variables), Path.cwd(), files))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise subprocess.TimeoutExpired((module, *arguments), seconds)
    return process.exitcode


class _Descriptor:
    """A file descriptor of this process. The new process receives a duplicate."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _received, (DupFd(self._number),)


def _received(duplicate: Any) -> int:
    number: int = duplicate.detach()
    return number


def _run(
    module: str, arguments: Sequence[str], variables: Mapping[str, str], folder: Path, files: Sequence[int]
) -> None:
    """Runs in the new process."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
