"""The proof for vLLM."""

from collections.abc import Callable, Mapping
from pathlib import Path

from doherty_engine import read_engine_options
from doherty_engine.models import visible_gpus
from doherty_engine.vllm import Options, measure_quality
from doherty_engine_cli._report import Report
from doherty_engine_cli._runs import run_profile
from doherty_engine_cli._server import serving

_OF_DRAFTS = frozenset({"draft", "draft_revision", "draft_tokens", "draft_schedule"})


def verify_vllm(
    options: Mapping[str, str], checkpoint: str, output: Path, report: Callable[[str], None], *, measures_quality: bool
) -> list[str]:
    """Writes report.md and report.json into `output`, and returns what is wrong; the report grows with every stage.

    Args:
        options: those of the engine, without a profile; a head is for `fastest` alone.
        checkpoint: what `fast` and `fastest` serve in place of the model, as `doherty engine prepare` has made it;
            empty for the model itself, which vLLM then quantizes while it loads.
        output: the folder for the report.
        report: is told what is done.
        measures_quality: whether to find out what FP8 costs.

    Raises:
        EngineSetupError: something cannot be run here at all.
    """
    plain = {name: value for name, value in options.items() if name not in _OF_DRAFTS}
    quantized = {"model": checkpoint, "revision": ""} if checkpoint else {}
    profiles = {
        "slow": {**plain, "profile": "slow"},
        "fast": {**plain, "profile": "fast", **quantized},
        "fastest": {**options, "profile": "fastest", **quantized},
    }
    told = Report("vLLM", [gpu.name for gpu in visible_gpus(extra="quantize")], [])
    if not options.get("draft"):
        del profiles["fastest"]
        told.notes.append("`fastest` was not run: no head was named (`-o draft=...`).")
    if not checkpoint:
        told.notes.append("FP8 is vLLM's own, while it loads: no checkpoint was named (`--checkpoint`).")
    for profile, values in profiles.items():
        with serving("vllm", values, report) as server:
            told.runs.append(run_profile(profile, server, report))
        told.write(output)
    if measures_quality:
        told.quality = measure_quality(_options(profiles["fast"]), _options(profiles["slow"]), report)
        told.write(output)
    return told.problems()


def _options(values: Mapping[str, str]) -> Options:
    read = read_engine_options("vllm", values)
    if not isinstance(read, Options):
        raise TypeError("these are not the options of vllm")
    return read
