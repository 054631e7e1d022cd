"""Streams of both clients, with a real server."""

import asyncio

import pytest

from doherty import (
    ClientClosedError,
    DeadlineExceededError,
    FinishReason,
    GenerateOptions,
    InvalidRequestError,
    StreamError,
    UnavailableError,
)
from support.server import start_server
from support.twins import ENDLESS, Kind, Twin, open_twin

DETAILS = GenerateOptions(token_ids=True, top_logprobs=1)


async def test_the_deltas_of_a_stream_are_the_whole_answer(twin: Twin) -> None:
    whole = await twin.generate("Name three colors.", max_output_tokens=40, temperature=0, options=DETAILS)
    stream = twin.stream("Name three colors.", max_output_tokens=40, temperature=0, options=DETAILS)
    deltas = await stream.rest()
    assert len(deltas) > 1
    assert "".join(map(str, deltas)) == whole.text == stream.stream.text
    assert [token_id for delta in deltas for token_id in delta.token_ids or ()] == list(whole.token_ids or ())
    assert [logprob for delta in deltas for logprob in delta.logprobs or ()] == list(whole.logprobs or ())
    assert sum(delta.token_count for delta in deltas) == whole.usage.output_tokens == 40
    answer = await stream.result()
    assert (answer.text, answer.token_ids, answer.logprobs) == (whole.text, whole.token_ids, whole.logprobs)
    assert (answer.finish_reason, answer.usage) == (FinishReason.LENGTH, whole.usage)
    assert answer.timings == stream.stream.timings
    assert answer.network is not None
    assert answer.network >= 0
    assert await stream.next() is None


async def test_a_stream_can_be_read_as_texts(twin: Twin) -> None:
    stream = twin.stream("Name three colors.", max_output_tokens=20)
    texts = await stream.texts()
    assert all(texts)
    assert "".join(texts) == stream.stream.text


async def test_a_result_reads_the_rest(twin: Twin) -> None:
    stream = twin.stream("Name three colors.", max_output_tokens=20)
    first = await stream.next()
    answer = await stream.result()
    assert first is not None
    assert answer.text.startswith(first.text)
    assert await stream.result() == answer


async def test_a_stream_has_properties_while_it_runs(twin: Twin) -> None:
    stream = twin.stream("Name three colors.", request_id="mine", **ENDLESS)
    assert (stream.stream.text, stream.stream.request_id, stream.stream.timings) == ("", "mine", None)
    first = await stream.next()
    second = await stream.next()
    assert first is not None
    assert second is not None
    assert stream.stream.text == first.text + second.text
    assert stream.stream.timings is None
    await stream.close()
    unnamed = twin.stream("Name three colors.", max_output_tokens=2)
    assert unnamed.stream.request_id is None
    assert (await unnamed.result()).request_id == unnamed.stream.request_id != ""


async def test_closing_ends_the_request_at_the_server(twin: Twin) -> None:
    before = await twin.aborts()
    stream = twin.stream("Name three colors.", options=GenerateOptions(ignore_eos=True, token_ids=True), request_id="r")
    first = await stream.next()
    await stream.close()
    await twin.wait_for_aborts(before + 1)
    assert first is not None
    for read in (stream.next, stream.result):
        with pytest.raises(StreamError, match="closed") as raised:
            await read()
        assert (raised.value.text, raised.value.token_ids) == (first.text, first.token_ids)
        assert raised.value.request_id == "r"
    assert stream.stream.text == first.text
    await stream.close()


async def test_closing_after_the_end_changes_nothing(twin: Twin) -> None:
    before = await twin.aborts()
    stream = twin.stream("Name three colors.", max_output_tokens=3)
    answer = await stream.result()
    await stream.close()
    assert await stream.result() == answer
    assert await twin.aborts() == before


async def test_a_stream_may_be_closed_by_another_than_its_reader(twin: Twin) -> None:
    before = await twin.aborts()
    stream = twin.stream("Name three colors.", **ENDLESS)
    await stream.next()
    reader = asyncio.create_task(stream.rest())
    await twin("latency")  # lets the reader begin to wait
    await stream.close()
    with pytest.raises(StreamError, match="closed"):
        await reader
    await twin.wait_for_aborts(before + 1)


async def test_reading_raises_the_error_of_a_refused_request(twin: Twin) -> None:
    stream = twin.stream("Name three colors.", temperature=9)
    for read in (stream.next, stream.result):
        with pytest.raises(InvalidRequestError) as raised:
            await read()
        assert raised.value.field_violations[0].field == "sampling.temperature"
    assert stream.stream.text == ""


async def test_the_received_part_stays_after_a_deadline(twin: Twin) -> None:
    stream = twin.stream("Name three colors.", timeout=1, **ENDLESS)
    with pytest.raises(DeadlineExceededError, match="timeout="):
        await stream.result()
    assert stream.stream.text
    with pytest.raises(DeadlineExceededError):
        await stream.next()


async def test_the_received_part_stays_after_a_failure(kind: Kind) -> None:
    with start_server("--engine", "synthetic", "-o", "fail_after_tokens=5") as server:
        async with open_twin(kind, server.target, resume=False) as twin:
            stream = twin.stream("Name three colors.")
            first = await stream.next()
            with pytest.raises(UnavailableError) as raised:
                await stream.rest()
            assert raised.value.reason == "ENGINE_FAILED"
            assert raised.value.retry_after is not None
            # Five tokens arrive in five deltas or fewer, because queued tokens are merged.
            assert stream.stream.text.startswith(str(first))
            assert len(stream.stream.text.split()) > 1
            with pytest.raises(UnavailableError):
                await stream.result()


async def test_the_death_of_a_server_is_raised(kind: Kind) -> None:
    with start_server("--engine", "synthetic") as server:
        async with open_twin(kind, server.target, resume=False) as twin:
            stream = twin.stream("Name three colors.", **ENDLESS)
            await stream.next()
            server.process.kill()
            with pytest.raises(ConnectionError, match=server.target):
                await stream.rest()
            assert stream.stream.text


async def test_closing_the_client_ends_its_streams(twin: Twin, kind: Kind) -> None:
    before = await twin.aborts()
    async with open_twin(kind, twin.client.target) as other:
        reader_of, left = other.stream("a", **ENDLESS), other.stream("b", **ENDLESS)
        await reader_of.next()
        await left.next()
        reader = asyncio.create_task(reader_of.rest())
        await other("latency")  # lets the reader begin to wait
    with pytest.raises(ClientClosedError):
        await reader
    with pytest.raises(ClientClosedError):
        await left.next()
    await twin.wait_for_aborts(before + 2)
