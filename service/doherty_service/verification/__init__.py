"""Proves on a user's own machine that TensorRT-LLM and this server do together what is promised.

It runs where TensorRT-LLM is, through `doherty engine verify`: first the contract with the installed package, then
real servers with the profiles fast and slow, then what FP8 costs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from doherty_engine import read_engine_options
from doherty_engine.models import visible_gpus
from doherty_engine.trtllm import Options, check_contract, measure_quality
from doherty_service.verification._report import REFERENCE, Report
from doherty_service.verification._runs import QUESTIONS, cancel, run_profile
from doherty_service.verification._server import serving

__all__ = ["QUESTIONS", "REFERENCE", "verify_engine"]

_WITH_LOGPROBS = {"profile": "slow", "gather_generation_logits": "true"}


def verify_engine(
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
    told = Report([gpu.name for gpu in visible_gpus(extra="trtllm")], findings)
    _write(told, output)
    for profile in REFERENCE if runs else ():
        with serving({**options, "profile": profile}, report) as server:
            told.runs.append(run_profile(profile, server, report))
        _write(told, output)
    if runs:
        # Making log probabilities costs time, so the ten questions are asked without.
        with serving({**options, **_WITH_LOGPROBS}, report) as server:
            report("slow: cancelling with log probabilities")
            told.runs[-1].cancels.append(cancel(server, logprobs=True))
        _write(told, output)
    if runs and measures_quality:
        told.quality, findings = measure_quality(read, report)
        told.findings += findings
        _write(told, output)
    return told.problems()


def _write(told: Report, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(told.as_json(), encoding="utf-8")
    (output / "report.md").write_text(told.as_markdown(), encoding="utf-8")
