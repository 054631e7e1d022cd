"""The number of usable cores, with a file system made by the tests."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from doherty_engine._cores import usable_cores
from doherty_engine.llamacpp import _options

V1 = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"
HYBRID = V1 + "0::/init.scope\n"
VERSION_2 = "0::/kubepods/pod1/abc\n"


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)


def write(root: Path, cgroup: str, files: Mapping[str, str]) -> None:
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        ("", {}, 16),
        # version 2: in a container with a cgroup namespace, in the whole tree, and without a limit
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        (VERSION_2, {"kubepods/pod1/abc/cpu.max": "max 100000\n", "kubepods/pod1/cpu.max": "150000 100000\n"}, 2),
        (VERSION_2, {"kubepods/pod1/abc/cpu.max": "50000 100000\n", "kubepods/cpu.max": "800000 100000\n"}, 1),
        (VERSION_2, {"kubepods/pod1/abc/cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/../..\n", {"cpu.max": "300000 100000\n"}, 3),
        # version 1: with the path in the container, with the path on the host, with either name, and without a limit
        (V1, {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        (
            HYBRID,
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "25000\n",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "10000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
    ],
)
def test_the_smallest_quota_limits_the_cores(tmp_path: Path, cgroup: str, files: dict[str, str], cores: int) -> None:
    write(tmp_path, cgroup, files)
    assert usable_cores(tmp_path) == cores


def test_before_python_3_13_the_affinity_mask_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (16, 15)])
def test_the_embedded_engine_leaves_a_core_to_the_server(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(_options, "usable_cores", lambda: cores)
    assert _options.default_threads() == threads
