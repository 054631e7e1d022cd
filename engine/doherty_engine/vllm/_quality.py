"""What FP8 costs on vLLM: both read a fixed text, and tell how probable each of its tokens was to them."""

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
    """Reads the text with two deployments, one after the other; blocks for as long as vLLM takes to start.

    Raises:
        EngineSetupError: one of them cannot start.
    """
    report("reading a text in FP8")
    with_fp8 = _read(fast)
    report("reading it without quantization")
    return compare(with_fp8, _read(slow))


def _read(options: Options) -> tuple[float, tuple[int, ...]]:
    """Perplexity, and the most probable token at each place. Drafts change neither, and are left out."""
    plain = replace(
        options, draft="", draft_revision="", draft_tokens=None, draft_schedule=None, ngram=None, prefix_caching=False
    )
    guard = Guard()
    try:
        context = load(plain, guard)
        try:
            ids = context.tokenizer.encode(" ".join(TEXT.split()))
            places = asyncio.run(_ask(context, ids))
        finally:
            context.llm.shutdown()
    finally:
        guard.close()
    lost = -sum(place[token].logprob for place, token in zip(places, ids[1:], strict=True))
    best = tuple(next(token for token, entry in place.items() if entry.rank == 1) for place in places)
    return math.exp(lost / len(places)), best


async def _ask(context: VllmContext, ids: list[int]) -> list[Any]:
    """The log probabilities of the tokens of a prompt, but for its first one."""
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
        raise EngineSetupError("vLLM has not told the log probabilities of the prompt; its own log above may say why.")
    return list(logprobs[1:])
