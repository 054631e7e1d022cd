"""Requests for the embedded engine."""

from dataclasses import replace
from itertools import count
from typing import Protocol

from doherty_engine import EngineRequest, RawText, Sampling
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
