"""A user's program, for type checkers: test_types.py checks the types, and nobody runs it."""

from collections.abc import Iterator
from typing import Any, assert_type

from pydantic import BaseModel

from doherty import (
    AsyncClient,
    AsyncGenerationStream,
    Client,
    Delta,
    FieldViolation,
    FinishReason,
    GenerateOptions,
    Generation,
    GenerationStream,
    Latency,
    Message,
    ModelInfo,
    OverloadedError,
    RawText,
    RetryPolicy,
    RpcError,
    StreamError,
    Timings,
    TLSConfig,
    TokenIds,
)


class Person(BaseModel):
    """A model of the program."""

    name: str


def whole(client: Client) -> None:
    """Unary answers."""
    plain = client.generate("Hi", temperature=0, stop=["."], timeout=None)
    assert_type(plain, Generation[None])
    assert_type(plain.text, str)
    assert_type(plain.parsed, None)
    assert_type(plain.finish_reason, FinishReason)
    assert_type(plain.timings.time_to_first_token, float | None)
    assert_type(plain.token_ids, tuple[int, ...] | None)
    typed = client.generate("Hi", schema=Person, max_output_tokens=9)
    assert_type(typed, Generation[Person])
    assert_type(typed.parsed.name, str)
    assert_type(client.generate("Hi", schema={"type": "object"}), Generation[Any])
    assert_type(client.generate("Hi", schema='{"type": "object"}').parsed, Any)
    anything: Generation = typed
    assert_type(anything.parsed, Any)


def streamed(client: Client) -> None:
    """Streamed answers."""
    with client.stream_generate("Hi", schema=Person) as stream:
        assert_type(stream, GenerationStream[Person])
        for delta in stream:
            assert_type(delta, Delta)
            assert_type(delta.text, str)
        assert_type(stream.text_stream, Iterator[str])
        assert_type(stream.result().parsed, Person)
        assert_type(stream.timings, Timings | None)
    assert_type(client.stream_generate("Hi"), GenerationStream[None])


async def asynchronous(client: AsyncClient) -> None:
    """The asynchronous client."""
    assert_type(await client.generate("Hi"), Generation[None])
    assert_type((await client.generate("Hi", schema=Person)).parsed, Person)
    async with client.stream_generate("Hi", schema=Person) as stream:
        assert_type(stream, AsyncGenerationStream[Person])
        async for delta in stream:
            assert_type(delta, Delta)
        assert_type((await stream.result()).parsed.name, str)
    assert_type(await client.model(), ModelInfo)


def prompts(client: Client) -> None:
    """The accepted prompts."""
    client.generate([Message("user", "Hi"), {"role": "assistant", "content": "Hello"}], system="Be brief.")
    client.generate(RawText("Hi"), options=GenerateOptions(choices=["yes", "no"], priority="batch"))
    client.generate(TokenIds([1, 2]))
    assert_type(client.count_tokens("Hi"), int)
    assert_type(client.latency(60), Latency)


def clients() -> None:
    """The ways to create a client."""
    Client(["a:1", "b:1"], tls=TLSConfig(ca=b""), api_key="dh_me_secret", retry=RetryPolicy(max_attempts=2)).close()
    with Client(timeout=None, retry=None, resume=False) as client:
        assert_type(client, Client)


def errors(client: Client) -> None:
    """The errors that can be caught."""
    try:
        client.generate("Hi")
    except OverloadedError as error:
        assert_type(error.retry_after, float | None)
    except RpcError as error:
        assert_type(error.field_violations, tuple[FieldViolation, ...])
        assert_type(error.request_id, str | None)
    except StreamError as error:
        assert_type(error.text, str)
