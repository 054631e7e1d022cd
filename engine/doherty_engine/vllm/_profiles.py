"""The profiles: named sets of options."""

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
"""`fast` captures a CUDA graph for every small batch size. On an H100 with 64 streams it is no worse than vLLM's mode
`balanced`, so there is no profile between it and `throughput`. `fastest` is `fast` with a draft head that the
deployment must name, because the right one depends on the model. `slow` is vLLM's default in the precision in which the
model was trained; the others are compared with it."""


def profiles() -> dict[str, dict[str, object]]:
    """The profiles: by name, the values of their options."""
    return {name: dict(values) for name, values in _PROFILES.items()}
