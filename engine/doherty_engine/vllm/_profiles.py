"""Named sets of options, each for one purpose."""

DEFAULT_PROFILE = "fast"

_PROFILES: dict[str, dict[str, object]] = {
    "fast": {"quantization": "fp8", "performance_mode": "interactivity", "slots": 64},
    "fastest": {
        "quantization": "fp8",
        "performance_mode": "interactivity",
        "slots": 64,
        "draft_schedule": "auto",
    },
    "slow": {"dtype": "bfloat16", "slots": 64},
    "throughput": {"quantization": "fp8", "performance_mode": "throughput", "slots": 256},
}
"""`fast` captures a CUDA graph for every small batch size; measured on an H100 it is no worse at 64 streams than
balanced, so that there is no profile between it and `throughput`. `fastest` is `fast` with drafts from a head that the
deployment names: which one fits depends on the model, and nothing is downloaded that nobody asked for. `slow` is what
vLLM does without being asked, in the precision that the model was trained in: the yardstick of the others."""


def profiles() -> dict[str, dict[str, object]]:
    """The profiles by name: what each sets, by the names of the options."""
    return {name: dict(values) for name, values in _PROFILES.items()}
