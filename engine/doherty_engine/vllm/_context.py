"""What all requests of a vLLM engine share."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from doherty_engine.text import HuggingFaceTokenizer, ModelFolder
from doherty_engine.tokens import EngineContext
from doherty_engine.vllm._library import Library
from doherty_engine.vllm._stats import Board


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmContext(EngineContext):
    """A started vLLM."""

    library: Library
    llm: Any
    """vLLM's AsyncLLM."""
    folder: ModelFolder
    tokenizer: HuggingFaceTokenizer
    board: Board
    adapters: Mapping[str, Any]
    """LoRARequests by the names of the adapters."""
    speculates: bool
    has_outputs: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when vLLM has produced outputs. It replaces the event `ready` of all of vLLM's collectors."""
