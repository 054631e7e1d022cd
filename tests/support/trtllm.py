"""Fixtures for the tests of TensorRT-LLM's engine."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from doherty_engine import Conversation, EngineRequest, Message, Role, Sampling, Stopping
from support.engines import EngineLab

Start = Callable[..., AbstractAsyncContextManager[EngineLab]]
"""Starts the engine with a backend or the profile "fast", with engine options, in a scenario of the fakes."""

BASE = EngineRequest(
    "base",
    Conversation((Message(Role.USER, "Name three colors."),)),
    Sampling(temperature=0.0),
    Stopping(max_output_tokens=400),
    token_ids=True,
)
ENDLESS = replace(BASE, key="endless", stopping=Stopping(max_output_tokens=4000, ignore_eos=True))
