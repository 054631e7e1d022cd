"""Measures the loss of quality by FP8: perplexity and greedy choices on a fixed text, compared with the original model.

Speculation is turned off, because it does not change answers. The two engines are built so that they return the logits
of prompts, and are cached like other engines.
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
    """The score of a model on the text."""

    perplexity: float
    best: tuple[int, ...]
    """The most probable token at each position."""
    findings: tuple[Finding, ...]
    """The checks of live results."""


def measure_quality(options: Options, report: Callable[[str], None]) -> tuple[Quality, list[Finding]]:
    """Builds missing engines, and evaluates the text with both. Blocks.

    Raises:
        EngineSetupError: An engine cannot be built or loaded.
    """
    with_logits = replace(options, profile_file="", gather_context_logits=True, enable_block_reuse=False)
    report("reading a text in FP8")
    fast = _read(replace(with_logits, profile="fast", lookahead=()))
    report("reading it without quantization")
    slow = _read(replace(with_logits, profile="slow"))
    quality = compare((fast.perplexity, fast.best), (slow.perplexity, slow.best))
    return quality, [*fast.findings, *slow.findings]


def _read(options: Options) -> TextScore:
    loaded = load_model(options)
    try:
        ids = loaded.tokenizer.encode(" ".join(TEXT.split()))
        result = asyncio.run(_ask(loaded.llm, ids, loaded.sampling.end_id))
        logits = result.context_logits
        if logits is None or logits.shape[0] < len(ids) - 1:
            raise EngineSetupError("TensorRT-LLM did not return the logits of the prompt, although they are built in.")
        rows = [logits[position].float() for position in range(len(ids) - 1)]
        loss = sum(row.logsumexp(-1).item() - row[token].item() for row, token in zip(rows, ids[1:], strict=True))
        best = tuple(int(row.argmax(-1).item()) for row in rows)
        return TextScore(math.exp(loss / len(rows)), best, tuple(check_result(result)))
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
