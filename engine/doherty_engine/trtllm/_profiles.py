"""The profiles (named sets of knobs), and how a deployment overrides them.

`fast` and `slow` have the values of the reference deployment's two modes (Modal's example of 2025 with NVIDIA's engine
flow: LLaMA 3 8B Instruct on one H100, tensorrt-llm 0.18). docs/tensorrt-llm.md explains the differences. `interactive`
follows NVIDIA's recommendation for the lowest latency with small batches (documentation of 1.2).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from doherty_engine._errors import EngineSetupError
from doherty_engine.trtllm._knobs import PYTORCH, TENSORRT, Knobs

DEFAULT_PROFILE = "fast"

PROFILES: Mapping[str, Knobs] = {
    "fast": Knobs(
        backend=TENSORRT,
        slots=1,
        temperature=0.0,
        max_batch_size=1,
        max_num_tokens=16384,
        max_input_len=8192,
        quantization="FP8",
        calib_batches=512,
        calib_batch_size=1,
        calib_max_seq_length=2048,
        tokenizer_max_seq_length=4096,
        multiple_profiles=True,
        paged_kv_cache=True,
        low_latency_gemm_swiglu_plugin="fp8",
        low_latency_gemm_plugin="fp8",
        lookahead=(8, 6, 8),
    ),
    "slow": Knobs(backend=TENSORRT, slots=32, temperature=0.8, top_p=0.95),
    "interactive": Knobs(
        backend=PYTORCH,
        slots=8,
        max_batch_size=8,
        max_num_tokens=8192,
        max_seq_len=8192,
        guided_decoding_backend="xgrammar",
        enable_block_reuse=True,
        free_gpu_memory_fraction=0.9,
        enable_chunked_prefill=False,
        return_perf_metrics=True,
        cuda_graph_max_batch_size=8,
        attn_backend="TRTLLM",
        disable_overlap_scheduler=False,
        enable_autotuner=True,
        stream_interval=1,
        num_postprocess_workers=0,
    ),
    "throughput": Knobs(
        backend=PYTORCH,
        slots=128,
        max_batch_size=128,
        max_num_tokens=8192,
        max_seq_len=8192,
        guided_decoding_backend="xgrammar",
        enable_block_reuse=True,
        free_gpu_memory_fraction=0.9,
        enable_chunked_prefill=True,
        return_perf_metrics=True,
        capacity_scheduler_policy="GUARANTEED_NO_EVICT",
        cuda_graph_max_batch_size=128,
        cuda_graph_padding=True,
        attn_backend="TRTLLM",
        disable_overlap_scheduler=False,
        enable_autotuner=True,
        stream_interval=1,
        num_postprocess_workers=0,
    ),
}


def profiles() -> dict[str, dict[str, object]]:
    """The knobs that each profile sets, by the name of the profile."""
    return {name: knobs.set_values() for name, knobs in PROFILES.items()}


def resolve(profile: str, file: str, own: Knobs) -> Knobs:
    """Returns the knobs of a deployment: `own` overrides the file, which overrides the profile.

    Raises:
        EngineSetupError: There is no such profile, the file is invalid, or the knobs contradict each other.
    """
    if profile not in PROFILES:
        raise EngineSetupError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    knobs = Knobs(**{**PROFILES[profile].set_values(), **_read(file), **own.set_values()})  # type: ignore[arg-type]  # by name
    _check(knobs)
    return knobs


def _read(file: str) -> dict[str, object]:
    """Reads knobs from a TOML file."""
    if not file:
        return {}
    try:
        values = _parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineSetupError(f"The profile's file {file} cannot be read ({error}).") from error
    parsers = {knob.name: knob.metadata["parse"] for knob in fields(Knobs)}
    if unknown := values.keys() - parsers.keys():
        raise EngineSetupError(f"The profile's file {file} sets unknown knobs: {', '.join(sorted(unknown))}.")
    try:
        return {name: parsers[name](_text(value)) for name, value in values.items()}
    except ValueError as error:
        raise EngineSetupError(f"The profile's file {file} cannot be read: {error}.") from error


def _parse(text: str) -> dict[str, object]:
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte-order mark, which TOML does not allow; save it without one")
    return tomllib.loads(text)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(knobs: Knobs) -> None:
    foreign = [
        knob.name
        for knob in fields(Knobs)
        if knob.metadata["backend"] not in ("", knobs.backend) and getattr(knobs, knob.name) is not None
    ]
    if foreign:
        raise EngineSetupError(
            f"The backend {knobs.backend} has no {', '.join(foreign)}; choose a profile of the other backend."
        )
    if knobs.slots is not None and knobs.max_batch_size is not None and knobs.slots > knobs.max_batch_size:
        raise EngineSetupError(
            f"With {knobs.slots} slots, max_batch_size is {knobs.max_batch_size}; "
            "set slots to at most max_batch_size, or raise both."
        )
    if knobs.speculation in ("eagle", "draft") and not knobs.speculative_model:
        raise EngineSetupError(f"The speculation {knobs.speculation} needs a model; set speculative_model to one.")
    if knobs.is_greedy_only and (knobs.temperature or knobs.top_p):
        raise EngineSetupError("With speculation all answers are greedy; set temperature to 0, and do not set top_p.")
