"""Many requests with a limited concurrency, with a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from doherty import AsyncClient, AsyncMap, ClientClosedError, Generation, InvalidRequestError, MapResult
from support.server import ServerProcess
from support.twins import ENDLESS

CONCURRENCY = 4


@pytest.fixture
async def client(synthetic_server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(synthetic_server.target) as opened:
        yield opened


async def _wait_until_idle(client: AsyncClient) -> None:
    while (await client.latency()).running:
        pass


async def test_results_have_the_order_of_the_prompts(client: AsyncClient) -> None:
    prompts = [f"Question {number}" for number in range(30)]
    results = [result async for result in client.map(prompts, concurrency=CONCURRENCY, max_output_tokens=3)]
    assert [(result.index, result.prompt) for result in results] == list(enumerate(prompts))
    whole = await client.generate(prompts[7], max_output_tokens=3)
    assert results[7].result().text == whole.text
    assert results[7].error is None


@pytest.mark.parametrize("order", ["ordered", "as they come"])
async def test_a_slow_answer_delays_later_ones_only_if_ordered(client: AsyncClient, order: str) -> None:
    others_are_done, done = asyncio.Event(), 0

    async def ask(prompt: Any) -> Generation:
        nonlocal done
        if prompt == "slow":
            await others_are_done.wait()
        answer = await client.generate(prompt, max_output_tokens=1)
        done += 1
        if done == 8:
            others_are_done.set()
        return answer

    results = AsyncMap(ask, ["slow", *map(str, range(8))], concurrency=3, ordered=order == "ordered")
    seen = [result.prompt async for result in results]
    assert seen.index("slow") == (0 if order == "ordered" else 8)
    assert len(seen) == 9


async def test_a_request_that_fails_does_not_affect_the_others(client: AsyncClient) -> None:
    prompts = ["Hi", "Hi " * 10_000, "Hi"]
    results = [result async for result in client.map(prompts, concurrency=2, max_output_tokens=2)]
    assert [type(result.error) for result in results] == [type(None), InvalidRequestError, type(None)]
    assert results[1].generation is None
    with pytest.raises(InvalidRequestError):
        results[1].result()


async def test_prompts_are_read_when_they_are_needed(client: AsyncClient) -> None:
    taken = 0

    def prompts() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "Hi"

    async with client.map(prompts(), concurrency=CONCURRENCY, max_output_tokens=1) as results:
        read = 0
        async for _ in results:
            read += 1
            assert taken - read <= 4 * CONCURRENCY
            if read == 50:
                break
    await _wait_until_idle(client)
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_running_requests_are_cancelled_with_the_iteration(client: AsyncClient, how: str) -> None:
    results = client.map(["Hi"] * 9, concurrency=CONCURRENCY, **ENDLESS)
    reading = asyncio.create_task(anext(results))
    while (await client.latency()).running < CONCURRENCY:
        pass
    if how == "left":
        tasks = asyncio.all_tasks()
        await results.aclose()
        assert len(tasks - asyncio.all_tasks()) >= CONCURRENCY
        with pytest.raises(StopAsyncIteration):
            await reading
    else:
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await _wait_until_idle(client)


async def test_a_break_cancels_running_requests(client: AsyncClient) -> None:
    async def ask(prompt: Any) -> Generation:
        limits: dict[str, Any] = {"max_output_tokens": 1} if prompt == "quick" else ENDLESS
        answer: Generation = await client.generate(prompt, **limits)
        return answer

    async for result in AsyncMap(ask, ["endless", "quick", "endless"], concurrency=3, ordered=False):
        assert result.prompt == "quick"
        break
    await _wait_until_idle(client)


async def test_an_invalid_prompt_is_an_error_among_the_results(client: AsyncClient) -> None:
    prompts: list[Any] = ["Hi", 7, [], "Hi", "half a \ud800"]
    results = [result async for result in client.map(prompts, max_output_tokens=1)]
    assert [result.index for result in results if result.generation] == [0, 3]
    assert [type(result.error) for result in results if result.error] == [InvalidRequestError] * 3
    assert "not int" in str(results[1].error)


async def test_an_error_that_concerns_all_requests_ends_the_iteration(client: AsyncClient) -> None:
    wrong: Any = "hot"
    with pytest.raises(TypeError):
        await anext(client.map(["Hi"], concurrency=1, temperature=wrong))
    closed = AsyncClient(client.target)
    results = closed.map(["Hi"] * 5, concurrency=1, max_output_tokens=1)
    await anext(results)
    await closed.close()
    with pytest.raises(ClientClosedError):
        await anext(results)
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_an_iterator_that_fails_ends_the_iteration_after_earlier_results(client: AsyncClient) -> None:
    def prompts() -> Iterator[str]:
        yield "Hi"
        raise LookupError("no more")

    results = client.map(prompts(), max_output_tokens=1)
    assert isinstance(await anext(results), MapResult)
    with pytest.raises(LookupError):
        await anext(results)


@pytest.mark.parametrize(
    ("prompts", "concurrency", "error"), [("Hi", 1, TypeError), (["Hi"], 0, ValueError), (["Hi"], True, TypeError)]
)
async def test_invalid_arguments_are_refused(
    client: AsyncClient, prompts: Any, concurrency: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.map(prompts, concurrency=concurrency)
