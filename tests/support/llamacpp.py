"""Requests for the embedded engine."""

import asyncio
from dataclasses import replace
from itertools import count
from typing import Protocol

from doherty_engine import EngineRequest, RawText, Sampling
from doherty_engine._semaphore import FairSemaphore
from doherty_engine.llamacpp import LlamaCppEngine
from doherty_engine.llamacpp._request import LlamaCppContext
from support.engines import EngineLab, Outcome

PROMPT = "<|im_start|>user\nName three colors.<|im_end|>\n<|im_start|>assistant\n"
"""A prompt in the form of the chat template, without its long system prompt: 13 tokens."""

_numbers = count()


class Ask(Protocol):
    """Sends the engine a request with some fields of EngineRequest set, and returns its outputs."""

    async def __call__(self, **fields: object) -> Outcome: ...


def llamacpp_request(**fields: object) -> EngineRequest:
    """Returns a greedy request with a key of its own."""
    base = EngineRequest(
        f"llamacpp-{next(_numbers)}", RawText(PROMPT), sampling=Sampling(temperature=0.0), token_ids=True
    )
    return replace(base, **fields)  # type: ignore[arg-type]  # each test names fields of EngineRequest


def asking(lab: EngineLab) -> Ask:
    """Returns an Ask for this engine."""

    async def ask(**fields: object) -> Outcome:
        return await lab.ask(llamacpp_request(**fields))

    return ask


def context_of(lab: EngineLab) -> LlamaCppContext:
    """Returns the engine's context, whose semaphores have the waiting requests."""
    assert isinstance(lab.engine, LlamaCppEngine)
    context = lab.engine._context  # noqa: SLF001 - nothing public shows which requests wait
    assert context is not None
    return context


async def until_one_waits(semaphore: FairSemaphore) -> None:
    """Waits until a request waits for units of a semaphore."""
    while not semaphore._waiting:  # noqa: ASYNC110, SLF001 - another thread changes it, and nothing public shows it
        await asyncio.sleep(0)
