"""How much memory of a GPU a model takes, estimated before anything is downloaded or built.

Weights are counted exactly from config.json; for workspace, activations and CUDA's own there are two gibibytes. An
estimate is meant to refuse what cannot fit, not to promise what does.
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
    """For one request that fills the context; what is left over is filled with more."""
    building: int
    """At the peak of quantization and build, where an engine is built; else 0."""

    @property
    def serving(self) -> int:
        """At least, once the model runs."""
        return self.weights + self.kv_cache + _OVERHEAD

    @property
    def needed(self) -> int:
        """The larger of the two."""
        return max(self.serving, self.building)

    def __str__(self) -> str:
        parts = f"weights {as_gib(self.weights)}, KV cache of one whole context {as_gib(self.kv_cache)}"
        building = f"; the build takes {as_gib(self.building)}" if self.building else ""
        return f"{as_gib(self.serving)} ({parts}){building}"


def estimate(shape: ModelShape, knobs: Knobs, gpus: int, *, is_fp8: bool) -> MemoryEstimate:
    """Estimates what each of `gpus` cards has to hold; `is_fp8` says how the weights are served."""
    half = (shape.linear_parameters + shape.embedding_parameters) * _HALF
    served = shape.linear_parameters * _EIGHTH + shape.embedding_parameters * _HALF if is_fp8 else half
    context = min(knobs.max_seq_len or shape.context, shape.context)
    width = _EIGHTH / _HALF if knobs.kv_cache_dtype == "fp8" else 1
    kv_cache = round(context * shape.kv_bytes_per_token * width)
    # Calibration runs the model as it is.
    building = (half if is_fp8 else served) // gpus + _OVERHEAD if knobs.backend == TENSORRT else 0
    return MemoryEstimate(served // gpus, kv_cache // gpus, building)


def check_gpus(gpus: list[Gpu], needed: MemoryEstimate | None, *, is_fp8: bool) -> None:
    """Makes sure that the cards can do it.

    Raises:
        EngineSetupError: one cannot compute in FP8, or has too little memory.
    """
    for gpu in gpus:
        if is_fp8 and not gpu.has_fp8:
            raise EngineSetupError(
                f"FP8 needs a GPU of the generation Ada or Hopper, and {gpu.name} is older; take another card, "
                "or the profile slow."
            )
        if needed is not None and gpu.memory < needed.needed:
            raise EngineSetupError(
                f"The model needs about {as_gib(needed.needed)} of GPU memory, and {gpu.name} has "
                f"{as_gib(gpu.memory)}; take a larger card, more of them, or a smaller model."
            )
