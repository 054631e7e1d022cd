"""Named sets of options, each for one purpose."""

DEFAULT_PROFILE = "fast"

_PROFILES: dict[str, dict[str, object]] = {
    "fast": {"quantization": "fp8", "performance_mode": "interactivity", "slots": 64},
    "slow": {"dtype": "bfloat16", "slots": 64},
    "throughput": {"quantization": "fp8", "performance_mode": "throughput", "slots": 256},
}
"""`fast` captures a CUDA graph for every small batch size; measured on an H100 it is no worse at 64 streams than
balanced, so that there is no profile between it and `throughput`. `slow` is what vLLM does without being asked, in the
precision that the model was trained in: the yardstick of the others."""


def profiles() -> dict[str, dict[str, object]]:
    """The profiles by name: what each sets, by the names of the options."""
    return {name: dict(values) for name, values in _PROFILES.items()}
