"""Estimates the GPU memory of a model before anything is downloaded or built.

The size of the weights is computed exactly from config.json; 2 GiB are added for workspace, activations and CUDA. The
estimate serves to refuse what cannot fit. It does not guarantee that the rest fits.
"""

from dataclasses import dataclass

from doherty_engine._errors import EngineSetupError
from doherty_engine.models import GIB, Gpu, ModelShape, as_gib
from doherty_engine.trtllm._knobs import TENSORRT, Knobs

_OVERHEAD = 2 * GIB
_HALF, _EIGHTH = 2, 1
"""Bytes of a number in bfloat16 and in FP8."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on each GPU."""

    weights: int
    kv_cache: int
    """The KV cache of one request that fills the context. TensorRT-LLM uses the remaining memory for more."""
    building: int
    """The peak of quantization and build if an engine is built; else 0."""

    @property
    def serving(self) -> int:
        """The minimum for a running model."""
        return self.weights + self.kv_cache + _OVERHEAD

    @property
    def needed(self) -> int:
        """The larger of `serving` and `building`."""
        return max(self.serving, self.building)

    def __str__(self) -> str:
        parts = f"weights {as_gib(self.weights)}, KV cache of one whole context {as_gib(self.kv_cache)}"
        building = f"; the build takes {as_gib(self.building)}" if self.building else ""
        return f"{as_gib(self.serving)} ({parts}){building}"


def estimate(shape: ModelShape, knobs: Knobs, gpus: int, *, is_fp8: bool) -> MemoryEstimate:
    """Estimates the memory on each of `gpus` GPUs. `is_fp8`: whether the weights are served in FP8."""
    half = (shape.linear_parameters + shape.embedding_parameters) * _HALF
    served = shape.linear_parameters * _EIGHTH + shape.embedding_parameters * _HALF if is_fp8 else half
    context = min(knobs.max_seq_len or shape.context, shape.context)
    width = _EIGHTH / _HALF if knobs.kv_cache_dtype == "fp8" else 1
    kv_cache = round(context * shape.kv_bytes_per_token * width)
    # Calibration runs the unquantized model.
    building = (half if is_fp8 else served) // gpus + _OVERHEAD if knobs.backend == TENSORRT else 0
    return MemoryEstimate(served // gpus, kv_cache // gpus, building)


def check_gpus(gpus: list[Gpu], needed: MemoryEstimate | None, *, is_fp8: bool) -> None:
    """Checks that the GPUs are sufficient.

    Raises:
        EngineSetupError: A GPU does not support FP8, or has too little memory.
    """
    for gpu in gpus:
        if is_fp8 and not gpu.has_fp8:
            raise EngineSetupError(
                f"FP8 needs a GPU of the generation Ada or Hopper, and {gpu.name} is older; use another card, "
                "or the profile slow."
            )
        if needed is not None and gpu.memory < needed.needed:
            raise EngineSetupError(
                f"The model needs about {as_gib(needed.needed)} of GPU memory, and {gpu.name} has "
                f"{as_gib(gpu.memory)}; use a larger card, more cards, or a smaller model."
            )
