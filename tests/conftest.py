"""The servers that most tests talk to, started once."""

from collections.abc import Iterator

import pytest

from support.server import ServerProcess, start_server


@pytest.fixture(scope="session")
def synthetic_server() -> Iterator[ServerProcess]:
    """The synthetic engine: deterministic, fast, with every feature that an engine can have."""
    with start_server("--engine", "synthetic") as server:
        yield server


@pytest.fixture(scope="session")
def model_server() -> Iterator[ServerProcess]:
    """The embedded engine with the packaged model; without the prompt cache, so that answers can be compared.

    Answers whose length nobody limits are short, for at times so small a model does not find an end.
    """
    with start_server("--engine-option", "prompt_cache=false", "--max-output-tokens", "48") as server:
        yield server
