"""Measures the loss of quality by FP8 on vLLM: the log probabilities of a fixed text, with and without quantization."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from doherty_engine._errors import EngineSetupError
from doherty_engine.models import TEXT, Quality, compare
from doherty_engine.vllm._context import VllmContext
from doherty_engine.vllm._guard import Guard
from doherty_engine.vllm._load import load
from doherty_engine.vllm._options import Options


def measure_quality(fast: Options, slow: Options, report: Callable[[str], None]) -> Quality:
    """Evaluates `models.TEXT` with two deployments, one after the other. Blocks until both are done.

    Raises:
        EngineSetupError: One of the deployments cannot start.
    """
    report("reading a text in FP8")
    with_fp8 = _read(fast)
    report("reading it without quantization")
    return compare(with_fp8, _read(slow))


def _read(options: Options) -> tuple[float, tuple[int, ...]]:
    """Returns the perplexity, and the most probable token at each position.

    Drafts are turned off, because they change neither.
    """
    plain = replace(
        options, draft="", draft_revision="", draft_tokens=None, draft_schedule=None, ngram=None, prefix_caching=False
    )
    guard = Guard()
    try:
        context = load(plain, guard)
        try:
            ids = context.tokenizer.encode(" ".join(TEXT.split()))
            positions = asyncio.run(_prompt_logprobs(context, ids))
        finally:
            context.llm.shutdown()
    finally:
        guard.close()
    loss = -sum(entries[token].logprob for entries, token in zip(positions, ids[1:], strict=True))
    best = tuple(next(token for token, entry in entries.items() if entry.rank == 1) for entries in positions)
    return math.exp(loss / len(positions)), best


async def _prompt_logprobs(context: VllmContext, ids: list[int]) -> list[Any]:
    """Returns the log probabilities of all tokens of a prompt except the first one."""
    library = context.library
    params = library.SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=1,
        detokenize=False,
        output_kind=library.RequestOutputKind.FINAL_ONLY,
    )
    collector = await context.llm.add_request("quality", library.tokens_input(ids), params)
    await collector.ready.wait()
    logprobs = collector.get_nowait().prompt_logprobs
    if logprobs is None or len(logprobs) != len(ids):
        raise EngineSetupError("vLLM did not return the log probabilities of the prompt; see its own log above.")
    return list(logprobs[1:])
