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
from doherty_engine.models import TEXT, Quality, compare
from doherty_engine.trtllm._contract import Finding, check_result
from doherty_engine.trtllm._library import load
from doherty_engine.trtllm._load import load_model
from doherty_engine.trtllm._options import Options


@dataclass(frozen=True, slots=True)
class TextScore:
    """How a model reads the text."""

    perplexity: float
    best: tuple[int, ...]
    """The most probable token at each place."""
    findings: tuple[Finding, ...]
    """What was found out about live results."""


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
    quality = compare((fast.perplexity, fast.best), (slow.perplexity, slow.best))
    return quality, [*fast.findings, *slow.findings]


def _read(options: Options) -> TextScore:
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
        return TextScore(math.exp(lost / len(rows)), best, tuple(check_result(result)))
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
