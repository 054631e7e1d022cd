"""The parts of NVML, as in nvidia-ml-py 13, that count and describe GPUs."""

from dataclasses import dataclass
from typing import Any

from _scenario import scenario


class NVMLError(Exception):
    """Any error of NVML."""


@dataclass(frozen=True)
class _Memory:
    total: int
    free: int
    used: int


_state = {"initialized": 0}


def _check() -> None:
    if not _state["initialized"]:
        raise NVMLError("Uninitialized")


def nvmlInit() -> None:  # noqa: N802 - NVML's names, here and below
    if not scenario().driver:
        raise NVMLError("Driver Not Loaded")
    _state["initialized"] += 1


def nvmlShutdown() -> None:  # noqa: N802
    _check()
    _state["initialized"] -= 1


def nvmlDeviceGetCount() -> int:  # noqa: N802
    _check()
    return len(scenario().cards)


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:  # noqa: N802
    _check()
    if index >= len(scenario().cards):
        raise NVMLError("Invalid Argument")
    return {"index": index, **scenario().cards[index]}


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:  # noqa: N802
    _check()
    return str(handle.get("uuid", f"GPU-0000000{handle['index']}-aaaa-bbbb-cccc-dddddddddddd"))


def nvmlDeviceGetName(handle: dict[str, Any]) -> str:  # noqa: N802
    _check()
    return str(handle["name"])


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any]) -> _Memory:  # noqa: N802
    _check()
    return _Memory(handle["memory"], handle["memory"], 0)


def nvmlDeviceGetCudaComputeCapability(handle: dict[str, Any]) -> tuple[int, int]:  # noqa: N802
    _check()
    major, minor = handle["capability"]
    return major, minor
