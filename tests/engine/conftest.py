"""The embedded engine, started once for all tests that only ask it something."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.engines import EngineLab, running
from support.llamacpp import Ask, asking


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def llamacpp_lab() -> AsyncIterator[EngineLab]:
    """With a small KV cache that a few requests fill, and no prompt cache, so that answers can be compared."""
    async with running("llamacpp", context_tokens="1024", prompt_cache="off") as lab:
        yield lab


@pytest.fixture
def llamacpp_ask(llamacpp_lab: EngineLab) -> Ask:
    """Asks that engine."""
    return asking(llamacpp_lab)
