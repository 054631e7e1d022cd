"""Runs the fake of vLLM, in a server or in this process."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

from doherty_engine import Conversation, EngineRequest, Sampling
from support.engines import EngineLab, Outcome, running
from support.hugging_face import Folder, read_folder, user, write_llama3

_TESTS = Path(__file__).parents[1]
FAKE_PATH = os.pathsep.join((str(_TESTS / "fakes"), str(_TESTS)))
"""The PYTHONPATH with which a process finds the fake and its dependencies."""


_numbers = count()


@dataclass(frozen=True)
class VllmLab:
    """A running engine that uses the fake."""

    lab: EngineLab
    llm: Any
    """The AsyncLLM of the fake."""
    folder: Folder

    async def until_dropped(self, key: str) -> None:
        """Waits until vLLM has aborted a request that it knew."""
        await until(lambda: key in self.llm.aborted)

    async def ask(self, **fields: Any) -> Outcome:
        """Returns all outputs of the engine for a greedy request with some fields set."""
        return await self.lab.ask(vllm_request(**fields))


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a condition that no event reports."""
    while not holds():  # noqa: ASYNC110 - no event reports the condition
        await asyncio.sleep(0)


def vllm_request(**fields: Any) -> EngineRequest:
    """Returns a greedy request with a key of its own."""
    content = Conversation((user("Name three colors."),))
    base = EngineRequest(f"vllm-{next(_numbers)}", content, sampling=Sampling(temperature=0.0), token_ids=True)
    return replace(base, **fields)


@asynccontextmanager
async def vllm_lab(folder: Path, **options: str) -> AsyncIterator[VllmLab]:
    """Starts the engine with the model in `folder`, or a small one, and stops it at the end of the block."""
    if not (folder / "config.json").exists():
        write_llama3(folder)
    with fake_vllm() as fake:
        async with running("vllm", model=str(folder), **options) as lab:
            yield VllmLab(lab, fake.ENGINES[-1], read_folder(folder))


@contextmanager
def fake_vllm() -> Iterator[Any]:
    """Makes this process import the fake. Yields its module of AsyncLLM, in which ENGINES lists all instances."""
    _forget()
    sys.path.insert(0, str(_TESTS / "fakes"))
    try:
        yield import_module("vllm.v1.engine.async_llm")
    finally:
        sys.path.remove(str(_TESTS / "fakes"))
        _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        del sys.modules[name]


def write_head(model: Path, head: Path, **changes: Any) -> Path:
    """Writes the config.json of an EAGLE-3 head that fits the model in `model`, and an unused file of weights.

    A change to None removes a field.
    """
    if not (model / "config.json").exists():
        write_llama3(model)
    config = {"hidden_size": 64} | json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config))
    fields = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": 100,
        "hidden_size": config["hidden_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "num_hidden_layers": 1,
        "vocab_size": config["vocab_size"],
    }
    head.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in (fields | changes).items() if value is not None}
    (head / "config.json").write_text(json.dumps(kept))
    (head / "model.safetensors").write_bytes(b"weights")
    return head
