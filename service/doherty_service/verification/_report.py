"""The report: for a person in Markdown, for a program in JSON."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from doherty_engine.trtllm import Finding, Quality
from doherty_service._version import server_version
from doherty_service.verification._runs import ProfileRun

REFERENCE = {"fast": (0.21117, 0.88327), "slow": (1.14088, 2.27424)}
"""Seconds to the last token, p50 and p90, as the reference published them for one H100."""

_LARGEST_LOSS = 0.02
"""NVIDIA's claim for FP8 is less than 2 %."""


@dataclass(slots=True)
class Report:
    """All that was found out."""

    gpus: list[str]
    findings: list[Finding]
    runs: list[ProfileRun] = field(default_factory=list)
    quality: Quality | None = None
    begun: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def problems(self) -> list[str]:
        """What somebody should look at."""
        found = [f"{one.name}: {one.problem}" for one in self.findings if one.problem]
        for run in self.runs:
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

    def as_json(self) -> str:
        """All figures, in seconds."""
        told = {
            "begun": self.begun,
            "doherty": server_version(),
            "machine": platform.platform(),
            "gpus": self.gpus,
            "problems": self.problems(),
            "contract": [asdict(one) for one in self.findings],
            "profiles": [
                {**asdict(run), "p50": run.p50, "p90": run.p90, "reference": REFERENCE.get(run.profile)}
                for run in self.runs
            ],
            "quality": None if self.quality is None else {**asdict(self.quality), "loss": self.quality.loss},
        }
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"

    def as_markdown(self) -> str:
        """For a person."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# TensorRT-LLM with Doherty"
        yield ""
        yield f"{self.begun}, Doherty {server_version()}, {', '.join(self.gpus)}"
        yield ""
        yield from self._verdict()
        if self.runs:
            yield from self._questions()
            yield from self._cancels()
            yield from self._streams()
        if self.quality is not None:
            yield from self._quality_lines(self.quality)

    def _verdict(self) -> Iterator[str]:
        problems = self.problems()
        checked = f"{len(self.findings)} names, signatures and fields compared"
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
        yield "| profile | p50 | reference's | p90 | reference's | tokens, median |"
        yield "|---|---|---|---|---|---|"
        for run in self.runs:
            if run.answers:
                p50, p90 = REFERENCE[run.profile]
                tokens = sorted(one.tokens for one in run.answers)[len(run.answers) // 2]
                yield f"| {run.profile} | {_ms(run.p50)} | {_ms(p50)} | {_ms(run.p90)} | {_ms(p90)} | {tokens} |"

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


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _with(logprobs: bool) -> str:  # noqa: FBT001 - its only parameter
    return " with log probabilities" if logprobs else ""
