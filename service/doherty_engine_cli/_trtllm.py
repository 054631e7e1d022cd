"""Verifies TensorRT-LLM."""

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
    """Writes report.md and report.json into `output` after each stage, and returns the problems.

    Args:
        options: Options of the engine, without a profile.
        output: The folder for the report.
        report: Called with the name of each step.
        runs: Whether to start servers, or only to compare the installed package.
        measures_quality: Whether to measure the quality loss of FP8.

    Raises:
        EngineSetupError: The engine cannot run on this machine.
    """
    parsed_options = read_engine_options("trtllm", options)
    if not isinstance(parsed_options, Options):
        raise TypeError("these are not the options of trtllm")
    report("comparing the installed TensorRT-LLM with the interface that Doherty uses")
    findings = check_contract()
    results = Report("TensorRT-LLM", [gpu.name for gpu in visible_gpus(extra="trtllm")], findings)
    results.write(output)
    for profile in REFERENCE if runs else ():
        with serving("trtllm", {**options, "profile": profile}, report) as server:
            longest = longest_prompt(replace(parsed_options, profile=profile))
            results.runs.append(run_profile(profile, server, report, longest))
        results.write(output)
    if runs:
        results.build = effective_build(replace(parsed_options, profile="fast"))
        # This needs another server, because log probabilities would slow the ten questions down.
        with serving("trtllm", {**options, **_WITH_LOGPROBS}, report) as server:
            report("slow: cancelling with log probabilities")
            results.runs[-1].cancels.append(cancel(server, logprobs=True))
        results.write(output)
    if runs and measures_quality:
        results.quality, findings = measure_quality(parsed_options, report)
        results.findings += findings
        results.write(output)
    return results.problems()
