"""The servers that most tests use. Each is started once."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.gpu import ENGINES, start_trtllm, write_model
from support.hugging_face import write_llama3, write_lora
from support.server import ServerProcess, start_server
from support.vllm import FAKE_PATH


@pytest.fixture(scope="session")
def synthetic_server() -> Iterator[ServerProcess]:
    """Runs the synthetic engine: deterministic, fast, and with every feature that an engine can have."""
    with start_server("--engine", "synthetic") as server:
        yield server


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Runs the vLLM engine on a fake of vLLM, with a real tokenizer."""
    folder = tmp_path_factory.mktemp("vllm")
    model, poet = write_llama3(folder / "model").path, write_lora(folder / "poet")
    flags = ("--engine", "vllm", "--model", str(model), "-o", f"adapters=poet={poet}")
    with start_server(*flags, PYTHONPATH=FAKE_PATH) as server:
        yield server


@pytest.fixture(scope="session")
def model_server() -> Iterator[ServerProcess]:
    """The embedded engine with the packaged model; without the prompt cache, so that answers can be compared.

    Answers whose length nobody limits are short, for at times so small a model does not find an end.
    """
    with start_server("--engine-option", "prompt_cache=false", "--max-output-tokens", "48") as server:
        yield server


@pytest.fixture(scope="session")
def tensorrt_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Runs TensorRT-LLM with built engines on the fake, with all features of this backend."""
    with _trtllm_server(tmp_path_factory, "tensorrt") as server:
        yield server


@pytest.fixture(scope="session")
def pytorch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Runs TensorRT-LLM's PyTorch backend on the fake."""
    with _trtllm_server(tmp_path_factory, "pytorch") as server:
        yield server


@contextmanager
def _trtllm_server(factory: pytest.TempPathFactory, backend: str) -> Iterator[ServerProcess]:
    folder = factory.mktemp(backend)
    model = write_model(folder / "model")
    (folder / "lora").mkdir()
    adapters = f"adapters=demo-a={folder / 'lora'},demo-b={folder / 'lora'}"
    with start_trtllm(model.path, *ENGINES[backend], adapters, tokens_per_second=1000) as server:
        yield server
