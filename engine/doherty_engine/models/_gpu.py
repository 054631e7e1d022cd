"""The GPUs that this process may use.

They are asked for through NVML (the module `pynvml`), which TensorRT-LLM and ModelOpt require themselves: it answers in
milliseconds and leaves no CUDA context behind, where `torch.cuda` takes seconds to import and pins memory on a card,
and where `nvidia-smi` would have to be parsed.
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
"""Ada Lovelace; Hopper is 9.0."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card."""

    name: str
    memory: int
    """In bytes, all of it."""
    capability: tuple[int, int]
    """CUDA's compute capability, as (9, 0)."""

    @property
    def has_fp8(self) -> bool:
        """Whether its tensor cores compute in FP8."""
        return self.capability >= _FP8_CAPABILITY


def visible_gpus(*, extra: str) -> list[Gpu]:
    """The cards that CUDA would show to this process; `extra` is this distribution's to name where pynvml is missing.

    Raises:
        EngineSetupError: there is none, or no driver to ask.
    """
    nvml = import_optional("pynvml", "Looking for GPUs", extra=extra, package="nvidia-ml-py")
    with _initialized(nvml):
        gpus = [_read(nvml, handle) for handle in _handles(nvml)]
    if not gpus:
        hidden = f" ({_VISIBLE} is {os.environ[_VISIBLE]!r})" if _VISIBLE in os.environ else ""
        raise EngineSetupError(
            f"There is no GPU that this process may use{hidden}; give it one, as with `docker run --gpus all`."
        )
    return gpus


@contextmanager
def _initialized(nvml: Any) -> Iterator[None]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise EngineSetupError(
            f"NVIDIA's driver cannot be asked for GPUs ({error}); one is needed, as with `docker run --gpus all`."
        ) from error
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _handles(nvml: Any) -> Iterator[Any]:
    """Those that CUDA_VISIBLE_DEVICES names: by number, or by the beginning of a UUID; the first wrong one ends it."""
    everything = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    named = os.environ.get(_VISIBLE)
    if named is None:
        yield from everything
        return
    by_uuid = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in everything}
    for name in map(str.strip, named.split(",")):
        if name.isdecimal() and int(name) < len(everything):
            yield everything[int(name)]
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
