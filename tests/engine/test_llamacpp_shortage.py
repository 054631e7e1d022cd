"""Without file descriptors, the embedded engine refuses a request and keeps working."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from doherty_engine import OutOfResourcesError, RawText
from support.engines import EngineLab
from support.llamacpp import llamacpp_request

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Within the block, this process cannot open any file."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_request_without_descriptors_is_refused_and_the_engine_continues(llamacpp_lab: EngineLab) -> None:
    before = await llamacpp_lab.engine.count_tokens(RawText("hello"))
    with no_descriptors():
        with pytest.raises(OutOfResourcesError):
            await llamacpp_lab.engine.count_tokens(RawText("hello"))
        refused = await llamacpp_lab.ask(llamacpp_request())
        assert isinstance(refused.error, OutOfResourcesError)
        assert llamacpp_lab.engine.health().ok
    assert await llamacpp_lab.engine.count_tokens(RawText("hello")) == before
    assert (await llamacpp_lab.ask(llamacpp_request())).text
