"""The cores and the CPU time of a server's processes."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_FEW_CORES = 8


def descendants(pid: int) -> list[int]:
    """Returns all descendants of a process."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    below: list[int] = []
    level = [pid]
    while level := [child for child, parent in parents.items() if parent in level]:
        below += level
    return below


def processor_seconds(pid: int) -> float:
    """Returns the CPU time of all threads of a process, in seconds."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICK


def is_running(pid: int) -> bool:
    """Whether a process is running, and not a zombie."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def pin(pid: int) -> None:
    """Pins a server's own process to two cores, and its worker processes to others.

    Load generators use the second half (`generator_cores`). On a machine with few cores, nothing is pinned.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < _FEW_CORES:
        return
    _pin_threads(pid, {cores[0], cores[2]})
    for child in descendants(pid):
        _pin_threads(child, set(cores[4 : len(cores) // 2]))


def generator_cores() -> set[int]:
    """Returns the cores for load generators."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores) if len(cores) < _FEW_CORES else set(cores[len(cores) // 2 :])


def _pin_threads(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on; an empty list if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
