"""Finds out how many CPU cores the process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V1_CONTROLLER = "cpu"
_V1_MOUNTS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def usable_cores(root: Path = Path("/")) -> int:
    """The number of cores that the process may run on, or its CPU quota (rounded up) if that is less; at least 1.

    A container with a quota sees all cores of its host. With one thread per core it would use up its quota early in
    every period (0.1 s) and then be stopped until the end of the period.

    Args:
        root: The root of the file system; tests use their own.
    """
    return max(1, min([_visible_cores(), *map(math.ceil, _quotas(root))]))


def _visible_cores() -> int:
    """The cores in the affinity mask, which a cpuset also restricts; with Python 3.13 or later, `-X cpu_count`."""
    if (count := getattr(os, "process_cpu_count", None)) is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The quotas in cores of the process's cgroup and of all its parents; all of them apply.

    The kernel documents the files: cpu.max in admin-guide/cgroup-v2.rst, cpu.cfs_quota_us and cpu.cfs_period_us in
    scheduler/sched-bwc.rst.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    unified, v1 = _paths(root)
    for folder in _folders(mounts, unified):
        quota, _, period = (_read(folder / "cpu.max") or "max 1").partition(" ")
        if quota != "max":
            yield int(quota) / int(period)
    for folder in (folder for mount in _V1_MOUNTS for folder in _folders(mounts / mount, v1)):
        quota, period = _read(folder / "cpu.cfs_quota_us") or "-1", _read(folder / "cpu.cfs_period_us") or "1"
        if int(quota) > 0:
            yield int(quota) / int(period)


def _paths(root: Path) -> tuple[PurePosixPath, PurePosixPath]:
    """The paths of the process's cgroup in version 2's tree, and in the tree of version 1's CPU controller."""
    unified = v1 = PurePosixPath("/")
    for line in (_read(root / "proc" / "self" / "cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            unified = PurePosixPath(path)
        elif _V1_CONTROLLER in controllers.split(","):
            v1 = PurePosixPath(path)
    return unified, v1


def _folders(mount: Path, path: PurePosixPath) -> list[Path]:
    """The folders of a cgroup and of its parents.

    In a container, the path may be that of the host, while the mount shows only its end. Then the folder of the mount
    itself is the container's cgroup.
    """
    return [mount.joinpath(*path.parts[1:count]) for count in range(1, len(path.parts) + 1)]


def _read(path: Path) -> str | None:
    """The text of a file; None if it does not exist, as on other systems than Linux."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return None
