"""The servers that most tests talk to, started once."""

from collections.abc import Iterator

import pytest

from support.hugging_face import write_llama3, write_lora
from support.server import ServerProcess, start_server
from support.vllm import FAKE_PATH


@pytest.fixture(scope="session")
def synthetic_server() -> Iterator[ServerProcess]:
    """The synthetic engine: deterministic, fast, with every feature that an engine can have."""
    with start_server("--engine", "synthetic") as server:
        yield server


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The vLLM engine on a stand-in for vLLM, with a real tokenizer."""
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
