"""Lists the GPUs that this process may use.

This uses NVML (the module `pynvml`), which TensorRT-LLM and ModelOpt need anyway. NVML answers in milliseconds and
creates no CUDA context. `torch.cuda` takes seconds to import and allocates GPU memory, and the output of `nvidia-smi`
would have to be parsed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine._optional import import_optional

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_FP8_CAPABILITY = (8, 9)
"""The compute capability of Ada Lovelace; Hopper's is 9.0."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    memory: int
    """The total memory in bytes."""
    capability: tuple[int, int]
    """CUDA's compute capability, such as (9, 0)."""

    @property
    def has_fp8(self) -> bool:
        """Whether its tensor cores support FP8."""
        return self.capability >= _FP8_CAPABILITY


def visible_gpus(*, extra: str) -> list[Gpu]:
    """Lists the GPUs that CUDA would show to this process.

    Args:
        extra: The extra of this distribution that installs pynvml; error messages name it.

    Raises:
        EngineSetupError: There is no GPU, NVIDIA's driver is missing, or pynvml is not installed.
    """
    nvml = import_optional("pynvml", "Looking for GPUs", extra=extra, package="nvidia-ml-py")
    with _initialized(nvml):
        gpus = [_read(nvml, handle) for handle in _handles(nvml)]
    if not gpus:
        hidden = f" ({_VISIBLE} is {os.environ[_VISIBLE]!r})" if _VISIBLE in os.environ else ""
        raise EngineSetupError(
            f"There is no GPU that this process may use{hidden}; provide one, for example with `docker run --gpus all`."
        )
    return gpus


@contextmanager
def _initialized(nvml: Any) -> Iterator[None]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise EngineSetupError(
            f"NVIDIA's driver cannot list GPUs ({error}); a GPU is needed, for example with `docker run --gpus all`."
        ) from error
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _handles(nvml: Any) -> Iterator[Any]:
    """The GPUs in CUDA_VISIBLE_DEVICES, by index or the start of a UUID. Like CUDA, this stops at an invalid entry."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    visible = os.environ.get(_VISIBLE)
    if visible is None:
        yield from handles
        return
    by_uuid = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
    for name in map(str.strip, visible.split(",")):
        if name.isdecimal() and int(name) < len(handles):
            yield handles[int(name)]
            continue
        matching = [handle for uuid, handle in by_uuid.items() if name and uuid.startswith(name)]
        if len(matching) != 1:
            return
        yield matching[0]


def _read(nvml: Any, handle: Any) -> Gpu:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=str(nvml.nvmlDeviceGetName(handle)),
        memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        capability=(major, minor),
    )
