"""Fixtures: the embedded engine, started once, and the fakes of the GPU engines."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.engines import EngineLab, running
from support.gpu import ENGINES, FakeGpu, calibration_set, forget_fakes, write_model
from support.hugging_face import Folder
from support.llamacpp import Ask, asking
from support.trtllm import Start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llamacpp_lab() -> AsyncIterator[EngineLab]:
    """Starts the engine with a KV cache that a few requests fill; without a prompt cache, answers are comparable."""
    async with running("llamacpp", context_tokens="1024", prompt_cache="off") as lab:
        yield lab


@pytest.fixture
def llamacpp_ask(llamacpp_lab: EngineLab) -> Ask:
    """Sends requests to that engine."""
    return asking(llamacpp_lab)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGpu]:
    """Installs the fakes of TensorRT-LLM and of NVML, with one H100."""
    fake = FakeGpu(monkeypatch, tmp_path)
    fake.be()
    yield fake
    forget_fakes()


@pytest.fixture
def llama(gpu: FakeGpu) -> Folder:
    """Creates a model with Llama 3's shape."""
    return write_model(gpu.folder / "model")


@pytest.fixture
def trtllm(gpu: FakeGpu, llama: Folder) -> Start:
    """Starts that model."""

    @asynccontextmanager
    async def starting(kind: str, *options: str, **scenario: Any) -> AsyncIterator[EngineLab]:
        gpu.be(**scenario)
        fast = ("profile=fast", f"calib_dataset={calibration_set(gpu.folder / 'texts')}")
        assignments = [*(fast if kind == "fast" else ENGINES[kind]), *options, f"engine_cache={gpu.folder / 'engines'}"]
        async with running(
            "trtllm", model=str(llama.path), **dict(assignment.split("=", 1) for assignment in assignments)
        ) as lab:
            yield lab

    return starting
