"""The report: for a person in Markdown, for a program in JSON."""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from doherty_engine.models import Quality
from doherty_engine.trtllm import Finding
from doherty_engine_cli._runs import ProfileRun

REFERENCE = {"fast": (0.21117, 0.88327), "slow": (1.14088, 2.27424)}
"""Seconds to the last token, p50 and p90, as the reference published them for one H100."""
_COMPARED = {**REFERENCE, "fastest": REFERENCE["fast"]}
"""With which of them a profile is compared."""
REFERENCE_BUILD: dict[str, object] = {
    "max_batch_size": 1,
    "max_input_len": 8192,
    "max_num_tokens": 16384,
    "speculative_decoding_mode": "LOOKAHEAD_DECODING",
    "plugin_config.low_latency_gemm_plugin": "fp8",
    "plugin_config.low_latency_gemm_swiglu_plugin": "fp8",
    "plugin_config.multiple_profiles": True,
    "plugin_config.paged_kv_cache": True,
}
"""What the reference set of the BuildConfig of its engine `fast`."""

_LARGEST_LOSS = 0.02
"""NVIDIA's claim for FP8 is less than 2 %."""


@dataclass(slots=True)
class Report:
    """All that was found out."""

    engine: str
    """vLLM or TensorRT-LLM."""
    gpus: list[str]
    findings: list[Finding]
    """What was compared with the installed package; empty where nothing was."""
    runs: list[ProfileRun] = field(default_factory=list)
    quality: Quality | None = None
    build: Mapping[str, object] = field(default_factory=dict)
    """The effective BuildConfig of the engine of the profile fast."""
    notes: list[str] = field(default_factory=list)
    """What was not run, and why."""
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def problems(self) -> list[str]:
        """What somebody should look at."""
        found = [f"{one.name}: {one.problem}" for one in self.findings if one.problem]
        for run in self.runs:
            if run.longest is not None and run.longest.problem:
                found.append(f"{run.profile}, a prompt of {run.longest.tokens} tokens: {run.longest.problem}")
            found += [
                f"{run.profile}, cancelled{_with(one.logprobs)}: {one.problem}" for one in run.cancels if one.problem
            ]
        if self.quality is not None and self.quality.loss > _LARGEST_LOSS:
            found.append(
                f"FP8 makes the perplexity {self.quality.loss:.1%} worse, which is more than {_LARGEST_LOSS:.0%}"
            )
        if self.quality is not None and 1 - self.quality.agreement > _LARGEST_LOSS:
            found.append(
                f"in FP8 the most probable token is the same at {self.quality.agreement:.1%} of places, "
                f"which is less than {1 - _LARGEST_LOSS:.0%}"
            )
        return found

    def write(self, folder: Path) -> None:
        """Writes both into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(self.as_json(), encoding="utf-8")
        (folder / "report.md").write_text(self.as_markdown(), encoding="utf-8")

    def as_json(self) -> str:
        """All figures, in seconds."""
        told = {
            "begun": self.begun,
            "engine": self.engine,
            "doherty": version("doherty"),
            "machine": platform.platform(),
            "gpus": self.gpus,
            "problems": self.problems(),
            "contract": [asdict(one) for one in self.findings],
            "profiles": [
                {
                    **asdict(run),
                    "p50": run.p50,
                    "p90": run.p90,
                    "within": run.within,
                    "reference": _COMPARED.get(run.profile),
                }
                for run in self.runs
            ],
            "notes": self.notes,
            "build": {"reference": REFERENCE_BUILD, "effective": dict(self.build)} if self.build else None,
            "quality": None if self.quality is None else {**asdict(self.quality), "loss": self.quality.loss},
        }
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """For a person."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"# {self.engine} with Doherty"
        yield ""
        yield f"{self.begun}, Doherty {version('doherty')}, {', '.join(self.gpus)}"
        yield ""
        yield from self._verdict()
        if self.notes:
            yield from ("", *(f"* {note}" for note in self.notes))
        if self.runs:
            yield from self._questions()
            yield from self._drafts()
            yield from self._longest()
            yield from self._cancels()
            yield from self._streams()
        if self.build:
            yield from self._build_lines()
        if self.quality is not None:
            yield from self._quality_lines(self.quality)

    def _verdict(self) -> Iterator[str]:
        problems = self.problems()
        checked = (
            f"{len(self.findings)} names, signatures and fields compared" if self.findings else "No contract compared"
        )
        if not problems:
            yield f"{checked}; nothing is wrong."
            return
        yield f"{checked}. To be looked at:"
        yield ""
        yield from (f"* {problem}" for problem in problems)

    def _questions(self) -> Iterator[str]:
        yield from ("", "## Ten questions one by one", "")
        yield "Milliseconds to the last token, as the server saw them; beside it what the reference published."
        yield ""
        yield "| profile | p50 | reference's | p90 | reference's | within 400 ms | tokens, median |"
        yield "|---|---|---|---|---|---|---|"
        for run in self.runs:
            if run.answers:
                p50, p90 = _COMPARED[run.profile]
                tokens = sorted(one.tokens for one in run.answers)[len(run.answers) // 2]
                figures = f"{_ms(run.p50)} | {_ms(p50)} | {_ms(run.p90)} | {_ms(p90)} | {run.within:.0%}"
                yield f"| {run.profile} | {figures} | {tokens} |"

    def _drafts(self) -> Iterator[str]:
        drafting = [run for run in self.runs if run.tokens_a_step is not None]
        if not drafting:
            return
        yield from ("", "## Drafts, over the ten questions", "")
        yield "| profile | tokens a step | drafts accepted up to position 1, 2, ... |"
        yield "|---|---|---|"
        for run in drafting:
            shares = ", ".join(f"{one:.0%}" for one in run.acceptance)
            yield f"| {run.profile} | {run.tokens_a_step:.2f} | {shares} |"

    def _longest(self) -> Iterator[str]:
        yield from ("", "## The longest prompt", "", "| profile | tokens | it is taken, and one token more refused |")
        yield "|---|---|---|"
        for run in self.runs:
            if run.longest is not None:
                yield f"| {run.profile} | {run.longest.tokens} | {run.longest.problem or 'yes'} |"

    def _build_lines(self) -> Iterator[str]:
        yield from ("", "## BuildConfig of the engine `fast`", "", "| field | reference | effective |", "|---|---|---|")
        effective = _flat(self.build)
        for name in sorted({*REFERENCE_BUILD, *effective}):
            yield f"| {name} | {REFERENCE_BUILD.get(name, '')} | {effective.get(name, '')} |"

    def _cancels(self) -> Iterator[str]:
        yield from (
            "",
            "## Cancelled streams",
            "",
            "| profile | log probabilities | slot free after, ms |",
            "|---|---|---|",
        )
        for run in self.runs:
            for one in run.cancels:
                seconds = "never" if one.seconds is None else _ms(one.seconds)
                yield f"| {run.profile} | {'yes' if one.logprobs else 'no'} | {seconds} |"

    def _streams(self) -> Iterator[str]:
        yield from ("", "## Streams side by side, 128 tokens each", "")
        yield "| profile | streams | tokens/s | first token, median ms |"
        yield "|---|---|---|---|"
        for run in self.runs:
            for one in run.streams:
                first = _ms(one.time_to_first_token)
                yield f"| {run.profile} | {one.streams} | {one.tokens_per_second:.0f} | {first} |"

    @staticmethod
    def _quality_lines(quality: Quality) -> Iterator[str]:
        yield from ("", "## What FP8 costs", "", f"On a fixed text of {quality.tokens} tokens:", "")
        yield from ("| | fast (FP8) | slow | difference |", "|---|---|---|---|")
        figures = f"{quality.fast_perplexity:.3f} | {quality.slow_perplexity:.3f} | {quality.loss:+.2%}"
        yield f"| perplexity | {figures} |"
        yield f"| same most probable token | | | {quality.agreement:.2%} |"


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Fields of fields by their path."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _with(logprobs: bool) -> str:  # noqa: FBT001 - its only parameter
    return " with log probabilities" if logprobs else ""
