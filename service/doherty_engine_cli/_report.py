"""The report of `doherty engine verify`, in Markdown and JSON."""

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
"""The p50 and p90 of the time to the last token, in seconds, that the reference published for one H100."""
_COMPARED = {**REFERENCE, "fastest": REFERENCE["fast"]}
"""The reference figures for each profile."""
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
"""The fields of BuildConfig that the reference set for its engine `fast`."""

_MAX_LOSS = 0.02
"""NVIDIA claims that FP8 loses less than 2 %."""


@dataclass(slots=True)
class Report:
    """All results of a verification."""

    engine: str
    """vLLM or TensorRT-LLM."""
    gpus: list[str]
    findings: list[Finding]
    """The results of the comparison with the installed package; empty if there was none."""
    runs: list[ProfileRun] = field(default_factory=list)
    quality: Quality | None = None
    build: Mapping[str, object] = field(default_factory=dict)
    """The effective BuildConfig of the engine of the profile fast."""
    notes: list[str] = field(default_factory=list)
    """What was not run, and why."""
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def problems(self) -> list[str]:
        """Returns all problems as text."""
        problems = [f"{finding.name}: {finding.problem}" for finding in self.findings if finding.problem]
        for run in self.runs:
            if run.longest is not None and run.longest.problem:
                problems.append(f"{run.profile}, a prompt of {run.longest.tokens} tokens: {run.longest.problem}")
            problems += [
                f"{run.profile}, cancelled{_with(cancel.logprobs)}: {cancel.problem}"
                for cancel in run.cancels
                if cancel.problem
            ]
        if self.quality is not None and self.quality.loss > _MAX_LOSS:
            problems.append(
                f"FP8 makes the perplexity {self.quality.loss:.1%} worse, which is more than {_MAX_LOSS:.0%}"
            )
        if self.quality is not None and 1 - self.quality.agreement > _MAX_LOSS:
            problems.append(
                f"with FP8 the most probable token is the same at {self.quality.agreement:.1%} of positions, "
                f"which is less than {1 - _MAX_LOSS:.0%}"
            )
        return problems

    def write(self, folder: Path) -> None:
        """Writes report.json and report.md into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(self.as_json(), encoding="utf-8")
        (folder / "report.md").write_text(self.as_markdown(), encoding="utf-8")

    def as_json(self) -> str:
        """Returns the report as JSON. Durations are in seconds."""
        content = {
            "begun": self.begun,
            "engine": self.engine,
            "doherty": version("doherty"),
            "machine": platform.platform(),
            "gpus": self.gpus,
            "problems": self.problems(),
            "contract": [asdict(finding) for finding in self.findings],
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
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """Returns the report as Markdown."""
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
            yield f"{checked}; no problems found."
            return
        yield f"{checked}. Problems:"
        yield ""
        yield from (f"* {problem}" for problem in problems)

    def _questions(self) -> Iterator[str]:
        yield from ("", "## Ten questions, one at a time", "")
        yield "Milliseconds to the last token as measured by the server, and the reference's published figures."
        yield ""
        yield "| profile | p50 | reference's | p90 | reference's | within 400 ms | tokens, median |"
        yield "|---|---|---|---|---|---|---|"
        for run in self.runs:
            if run.answers:
                p50, p90 = _COMPARED[run.profile]
                tokens = sorted(answer.tokens for answer in run.answers)[len(run.answers) // 2]
                figures = f"{_ms(run.p50)} | {_ms(p50)} | {_ms(run.p90)} | {_ms(p90)} | {run.within:.0%}"
                yield f"| {run.profile} | {figures} | {tokens} |"

    def _drafts(self) -> Iterator[str]:
        drafting = [run for run in self.runs if run.tokens_a_step is not None]
        if not drafting:
            return
        yield from ("", "## Speculative decoding during the ten questions", "")
        yield "| profile | tokens per step | share of drafts accepted up to position 1, 2, ... |"
        yield "|---|---|---|"
        for run in drafting:
            shares = ", ".join(f"{share:.0%}" for share in run.acceptance)
            yield f"| {run.profile} | {run.tokens_a_step:.2f} | {shares} |"

    def _longest(self) -> Iterator[str]:
        yield from ("", "## The longest prompt", "", "| profile | tokens | accepted, and a longer one refused |")
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
            for cancel in run.cancels:
                duration = "never" if cancel.seconds is None else _ms(cancel.seconds)
                yield f"| {run.profile} | {'yes' if cancel.logprobs else 'no'} | {duration} |"

    def _streams(self) -> Iterator[str]:
        yield from ("", "## Parallel streams, 128 tokens each", "")
        yield "| profile | streams | tokens/s | first token, median ms |"
        yield "|---|---|---|---|"
        for run in self.runs:
            for streamed in run.streams:
                first = _ms(streamed.time_to_first_token)
                yield f"| {run.profile} | {streamed.streams} | {streamed.tokens_per_second:.0f} | {first} |"

    @staticmethod
    def _quality_lines(quality: Quality) -> Iterator[str]:
        yield from ("", "## Quality loss of FP8", "", f"On a fixed text of {quality.tokens} tokens:", "")
        yield from ("| | fast (FP8) | slow | difference |", "|---|---|---|---|")
        figures = f"{quality.fast_perplexity:.3f} | {quality.slow_perplexity:.3f} | {quality.loss:+.2%}"
        yield f"| perplexity | {figures} |"
        yield f"| same most probable token | | | {quality.agreement:.2%} |"


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flattens nested mappings: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _with(logprobs: bool) -> str:  # noqa: FBT001 - its only parameter
    return " with log probabilities" if logprobs else ""
