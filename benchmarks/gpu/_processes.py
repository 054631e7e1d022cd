"""The processes of a side: on which cores they run, and what they used."""

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_FEW_CORES = 8


def descendants(pid: int) -> list[int]:
    """All processes below one."""
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
    """What all threads of a process have used so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICK


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not just what is left of one."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def pin(pid: int) -> None:
    """Puts a server's own process on two cores, and the processes that compute for it on others.

    Load generators take the second half (`generator_cores`). On a machine with few cores, nothing is pinned.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < _FEW_CORES:
        return
    _pin_threads(pid, {cores[0], cores[2]})
    for child in descendants(pid):
        _pin_threads(child, set(cores[4 : len(cores) // 2]))


def generator_cores() -> set[int]:
    """The cores for load generators."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores) if len(cores) < _FEW_CORES else set(cores[len(cores) // 2 :])


def _pin_threads(pid: int, cores: set[int]) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
