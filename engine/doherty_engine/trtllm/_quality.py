"""What FP8 costs: perplexity and greedy choice on a fixed text, against the model as it was trained.

Speculation is left out, for it changes no answer; what is compared are two engines that tell the logits of a prompt.
They are built like others and kept.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.trtllm._contract import Finding, check_result
from doherty_engine.trtllm._library import load
from doherty_engine.trtllm._load import load_model
from doherty_engine.trtllm._options import Options

TEXT = """
Water is the reason why the weather of a coast is milder than that of the land behind it. A kilogram of water has to
take in about four times as much heat as a kilogram of sand before it is one degree warmer, and so the sea is slow
in summer and slow in winter. By day the land is heated first. The air above it rises, and cooler air from the sea
comes in below: that is the wind which sailors know in the afternoon. By night it is the other way round. Whoever
lives on an island therefore seldom sees frost, and seldom a heat that lasts. Further inland the same sun does more.
In the middle of a continent the difference between July and January can be sixty degrees, though both places lie
equally far from the equator. Mountains change the picture once more. Where a wind from the sea has to climb, it
cools, and what it carries falls as rain or snow on the side that it meets first; on the other side lies a dry
valley, in which people dig channels for what melts above them. It is a mistake to believe that deserts are made by
heat alone. Some of them are cold for half of the year, and some lie beside an ocean whose currents come from the
ice, so that fog is all that they get. What makes a desert is that more water could evaporate there than ever falls.
A forest, on the other hand, makes part of its own rain: its leaves give back to the air what its roots have found,
and a cloud that has formed over trees may travel a thousand kilometres before it breaks. When the trees are felled,
the rivers carry more for some years, and then less. None of this needs a computer to be understood, and yet it took
two centuries of patient measurement, by people who wrote down every morning what the thermometer showed, until
anybody could say how much of it would happen again next year.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a model reads the text."""

    perplexity: float
    best: tuple[int, ...]
    """The most probable token at each place."""
    findings: tuple[Finding, ...]
    """What was found out about live results."""


@dataclass(frozen=True, slots=True)
class Quality:
    """One model against the other, on the same text."""

    tokens: int
    fast_perplexity: float
    slow_perplexity: float
    agreement: float
    """The share of places at which both find the same token most probable."""

    @property
    def loss(self) -> float:
        """By how much the perplexity of `fast` is worse, as a share of that of `slow`."""
        return self.fast_perplexity / self.slow_perplexity - 1


def measure_quality(options: Options, report: Callable[[str], None]) -> tuple[Quality, list[Finding]]:
    """Builds what is missing, and reads the text with both; blocks for as long as that takes.

    Raises:
        EngineSetupError: it cannot be done here.
    """
    telling = replace(options, profile_file="", gather_context_logits=True, enable_block_reuse=False)
    report("reading a text in FP8")
    fast = _read(replace(telling, profile="fast", lookahead=()))
    report("reading it without quantization")
    slow = _read(replace(telling, profile="slow"))
    same = sum(one == other for one, other in zip(fast.best, slow.best, strict=True))
    quality = Quality(len(fast.best), fast.perplexity, slow.perplexity, same / len(fast.best))
    return quality, [*fast.findings, *slow.findings]


def _read(options: Options) -> Reading:
    loaded = load_model(options)
    try:
        ids = loaded.tokenizer.encode(" ".join(TEXT.split()))
        result = asyncio.run(_ask(loaded.llm, ids, loaded.sampling.end_id))
        logits = result.context_logits
        if logits is None or logits.shape[0] < len(ids) - 1:
            raise EngineSetupError("TensorRT-LLM has not told the logits of the prompt, though the engine has them.")
        rows = [logits[place].float() for place in range(len(ids) - 1)]
        lost = sum(row.logsumexp(-1).item() - row[token].item() for row, token in zip(rows, ids[1:], strict=True))
        best = tuple(int(row.argmax(-1).item()) for row in rows)
        return Reading(math.exp(lost / len(rows)), best, tuple(check_result(result)))
    finally:
        loaded.close()


async def _ask(llm: Any, ids: list[int], end_id: int) -> Any:
    params = load("tensorrt_llm").SamplingParams(
        end_id=end_id,
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        return_context_logits=True,
        return_perf_metrics=True,
    )
    return await llm.generate_async(ids, sampling_params=params)
