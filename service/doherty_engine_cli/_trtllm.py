"""The proof for TensorRT-LLM."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from doherty_engine import read_engine_options
from doherty_engine.models import visible_gpus
from doherty_engine.trtllm import Options, check_contract, effective_build, longest_prompt, measure_quality
from doherty_engine_cli._report import REFERENCE, Report
from doherty_engine_cli._runs import cancel, run_profile
from doherty_engine_cli._server import serving

_WITH_LOGPROBS = {"profile": "slow", "gather_generation_logits": "true"}


def verify_trtllm(
    options: Mapping[str, str], output: Path, report: Callable[[str], None], *, runs: bool, measures_quality: bool
) -> list[str]:
    """Writes report.md and report.json into `output`, and returns what is wrong; the report grows with every stage.

    Raises:
        EngineSetupError: something cannot be run here at all.
    """
    read = read_engine_options("trtllm", options)
    if not isinstance(read, Options):
        raise TypeError("these are not the options of trtllm")
    report("comparing the installed TensorRT-LLM with what is relied on")
    findings = check_contract()
    told = Report("TensorRT-LLM", [gpu.name for gpu in visible_gpus(extra="trtllm")], findings)
    told.write(output)
    for profile in REFERENCE if runs else ():
        with serving("trtllm", {**options, "profile": profile}, report) as server:
            longest = longest_prompt(replace(read, profile=profile))
            told.runs.append(run_profile(profile, server, report, longest))
        told.write(output)
    if runs:
        told.build = effective_build(replace(read, profile="fast"))
        # Making log probabilities costs time, so the ten questions are asked without.
        with serving("trtllm", {**options, **_WITH_LOGPROBS}, report) as server:
            report("slow: cancelling with log probabilities")
            told.runs[-1].cancels.append(cancel(server, logprobs=True))
        told.write(output)
    if runs and measures_quality:
        told.quality, findings = measure_quality(read, report)
        told.findings += findings
        told.write(output)
    return told.problems()
