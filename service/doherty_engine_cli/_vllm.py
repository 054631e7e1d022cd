"""Verifies vLLM."""

from collections.abc import Callable, Mapping
from pathlib import Path

from doherty_engine import read_engine_options
from doherty_engine.models import visible_gpus
from doherty_engine.vllm import Options, measure_quality
from doherty_engine_cli._report import Report
from doherty_engine_cli._runs import run_profile
from doherty_engine_cli._server import serving

_DRAFT_OPTIONS = frozenset({"draft", "draft_revision", "draft_tokens", "draft_schedule"})


def verify_vllm(
    options: Mapping[str, str], checkpoint: str, output: Path, report: Callable[[str], None], *, measures_quality: bool
) -> list[str]:
    """Writes report.md and report.json into `output` after each stage, and returns the problems.

    Args:
        options: Options of the engine, without a profile. Those for drafts apply to the profile `fastest` only.
        checkpoint: The checkpoint from `doherty engine prepare` that `fast` and `fastest` serve instead of the model.
            If it is empty, vLLM quantizes the model while it loads it.
        output: The folder for the report.
        report: Called with the name of each step.
        measures_quality: Whether to measure the quality loss of FP8.

    Raises:
        EngineSetupError: The engine cannot run on this machine.
    """
    plain = {name: value for name, value in options.items() if name not in _DRAFT_OPTIONS}
    quantized = {"model": checkpoint, "revision": ""} if checkpoint else {}
    profiles = {
        "slow": {**plain, "profile": "slow"},
        "fast": {**plain, "profile": "fast", **quantized},
        "fastest": {**options, "profile": "fastest", **quantized},
    }
    results = Report("vLLM", [gpu.name for gpu in visible_gpus(extra="quantize")], [])
    if not options.get("draft"):
        del profiles["fastest"]
        results.notes.append("`fastest` was not run, because no draft head was given (`-o draft=...`).")
    if not checkpoint:
        results.notes.append("vLLM quantized to FP8 while loading, because no checkpoint was given (`--checkpoint`).")
    for profile, values in profiles.items():
        with serving("vllm", values, report) as server:
            results.runs.append(run_profile(profile, server, report))
        results.write(output)
    if measures_quality:
        results.quality = measure_quality(_options(profiles["fast"]), _options(profiles["slow"]), report)
        results.write(output)
    return results.problems()


def _options(values: Mapping[str, str]) -> Options:
    options = read_engine_options("vllm", values)
    if not isinstance(options, Options):
        raise TypeError("these are not the options of vllm")
    return options
