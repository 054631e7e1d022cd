"""`doherty.testing` gives scripted answers to the real clients."""

from typing import Any

import grpc
import pytest
from pydantic import BaseModel

from doherty import (
    Client,
    Delta,
    FieldViolation,
    FinishReason,
    GenerateOptions,
    Generation,
    Health,
    InternalError,
    InvalidRequestError,
    Latency,
    Limits,
    Message,
    ModelInfo,
    NotFoundError,
    OverloadedError,
    Quantiles,
    RawText,
    ReplyMetadata,
    RetryPolicy,
    RpcError,
    Speculation,
    Timings,
    TokenIds,
    TokenLogprob,
    UnavailableError,
    Usage,
    testing,
)
from doherty.testing import FakeServer, Reply, Request
from doherty.testing.fixtures import doherty_server
from support.twins import Kind, Twin, open_twin

__all__ = ["doherty_server"]

SKY = "The sky is blue."
KEPT = set(Generation.__dataclass_fields__) - {"network"}


def test_the_public_names_are_these() -> None:
    assert testing.__all__ == ["Answer", "FakeServer", "Reply", "Request", "Script"]


async def test_replies_are_used_in_order_and_then_the_default(kind: Kind) -> None:
    with FakeServer("default") as server:
        server.reply("first", lambda request: f"second to {request.prompt}")
        async with open_twin(kind, server.target) as twin:
            assert [str(await twin.generate(name)) for name in "abc"] == ["first", "second to b", "default"]


async def test_a_request_without_a_reply_fails_with_an_explanation(twin: Twin) -> None:
    with pytest.raises(InternalError, match="No reply is scripted for this request"):
        await twin.generate("Hello")


async def test_a_text_is_streamed_by_words_and_equals_the_unary_text(twin: Twin, server: FakeServer) -> None:
    text = " One  two\nthree "
    server.reply(text, text)
    stream = twin.stream("Count.")
    assert [delta.text for delta in await stream.rest()] == [" One", "  two", "\nthree "]
    streamed, unary = await stream.result(), await twin.generate("Count.")
    assert streamed.text == unary.text == text
    assert streamed.usage == unary.usage == Usage(prompt_tokens=1, output_tokens=3)
    assert streamed.model == unary.model == "fake"


async def test_all_fields_of_a_generation_arrive(twin: Twin, server: FakeServer) -> None:
    expected = Generation(
        text="hi",
        token_ids=(7,),
        logprobs=(TokenLogprob(7, b"hi", -0.25),),
        finish_reason=FinishReason.LENGTH,
        stop_text="x",
        usage=Usage(11, 12, 3),
        timings=Timings(queue=0.25, total=0.5),
        request_id="me",
        model="llama",
        seed=5,
        speculation=Speculation(3, 2, 1),
    )
    server.reply(expected, expected)
    options = GenerateOptions(token_ids=True, top_logprobs=0)
    stream = twin.stream("Hello", options=options)
    for answer in (await twin.generate("Hello", options=options), await stream.result()):
        assert answer == Generation(**{name: getattr(expected, name) for name in KEPT}, network=answer.network)


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
async def test_metadata_arrives(twin: Twin, server: FakeServer) -> None:
    expected = Generation(text="hi", metadata=ReplyMetadata({"x-proxy": "a"}, {"x-load-bin": b"\xff"}))
    server.reply(expected, expected)
    for answer in (await twin.generate("Hello", request_id="me"), await twin.stream("Hello", request_id="me").result()):
        assert answer.metadata.initial["x-proxy"] == "a"
        assert answer.metadata.initial["doherty-request-id"] == "me"
        assert answer.metadata.trailing["x-load-bin"] == b"\xff"
        assert "total;dur=" in str(answer.metadata.trailing["server-timing"])


async def test_details_that_were_not_requested_are_absent(twin: Twin, server: FakeServer) -> None:
    server.reply([Delta("hi", (7,), (TokenLogprob(7, b"hi", -0.25),))])
    answer = await twin.generate("Hello")
    assert (answer.token_ids, answer.logprobs) == (None, None)


async def test_all_fields_of_a_request_are_recorded(twin: Twin, server: FakeServer, kind: Kind) -> None:
    server.reply("ok")
    options = GenerateOptions(model="m", top_k=5, min_p=0.1, choices=("a", "b"), priority="batch", stop_token_ids=(1,))
    parameters: dict[str, Any] = {
        "system": "Be brief.", "temperature": 0.7, "top_p": 0.9, "max_output_tokens": 9, "seed": 3, "adapter": "poet",
        "time_limit": 1.5, "request_id": "me", "options": options,
    }  # fmt: skip
    await twin.generate("Hello", stop=["x", "y"], **parameters, timeout=30)
    [request] = server.requests
    assert request.timeout is not None
    assert 0 < request.timeout < 31  # gRPC rounds a deadline up to three digits
    rpc: Any = "MultiplexGenerate" if kind == "multiplex" else "Generate"
    expected = Request(
        rpc=rpc, prompt="Hello", stop=("x", "y"), **parameters, timeout=request.timeout, metadata=request.metadata
    )
    assert request == expected
    assert request.messages == [Message("system", "Be brief."), Message("user", "Hello")]


@pytest.mark.parametrize(
    "prompt", ["Hello", [Message("user", "Hi"), Message("assistant", "Ho")], RawText("Hi"), TokenIds((1, 2))], ids=type
)
def test_a_prompt_is_recorded_in_the_form_that_was_used(prompt: Any, server: FakeServer) -> None:
    server.reply("ok")
    with Client(server.target) as client:
        client.generate(prompt)
    assert server.requests[0].prompt == prompt


def test_a_schema_is_recorded_and_an_answer_is_parsed(server: FakeServer) -> None:
    class Person(BaseModel):
        name: str

    server.reply('{"name":"Ada"}')
    with Client(server.target) as client:
        assert client.generate("Who?", schema=Person).parsed == Person(name="Ada")
    assert server.requests[0].schema["properties"] == {"name": {"title": "Name", "type": "string"}}


async def test_the_key_is_recorded_and_not_shown(kind: Kind, server: FakeServer) -> None:
    server.reply("ok")
    async with open_twin(kind, server.target, api_key="dh_secret") as twin:
        await twin.generate("Hello")
    assert server.requests[0].metadata["authorization"] == "Bearer dh_secret"
    assert "dh_secret" not in repr(server.requests)


async def test_an_error_is_raised_as_it_was_scripted(twin: Twin, server: FakeServer) -> None:
    violations = (FieldViolation("sampling.top_p", "must be above 0"),)
    scripted = InvalidRequestError(
        "no", reason="ODD", request_id="me", field_violations=violations, timings=Timings(total=0.5)
    )
    server.reply(scripted, NotFoundError("not here"), OverloadedError("full"))
    with pytest.raises(InvalidRequestError) as raised:
        await twin.generate("Hello")
    assert vars(raised.value) == vars(scripted)
    with pytest.raises(NotFoundError) as usual:
        await twin.generate("Hello")
    assert (usual.value.code, usual.value.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    with pytest.raises(OverloadedError):  # without retry_after, it is not retried
        await twin.generate("Hello")
    assert len(server.requests) == 3


async def test_a_refusal_with_a_retry_time_is_retried(twin: Twin, server: FakeServer) -> None:
    server.reply(OverloadedError("full", retry_after=0.01), UnavailableError("soon", retry_after=0.01), SKY)
    assert str(await twin.generate("Why?")) == SKY
    assert len(server.requests) == 3


async def test_an_exception_in_a_reply_is_reported(
    twin: Twin, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Request) -> str:
        raise AssertionError("mine")

    server.reply(broken)
    with pytest.raises(InternalError, match="the test's reply failed: AssertionError: mine"):
        await twin.generate("Hello")
    assert caplog.records[0].exc_info is not None


@pytest.mark.parametrize("reply", [5, None, b"bytes", str])
def test_an_invalid_reply_is_refused(reply: Any, server: FakeServer) -> None:
    with pytest.raises(TypeError, match="is no reply"):
        server.reply(reply)
    with pytest.raises(ValueError, match="exclude each other"):
        Reply(error=InternalError("x"), cut_off=True)


async def test_a_token_count_is_the_number_of_words_unless_the_test_sets_it(twin: Twin, server: FakeServer) -> None:
    conversation = [Message("user", "one two"), Message("assistant", "three")]
    assert await twin("count_tokens", conversation, system="zero") == 4
    assert await twin("count_tokens", RawText("a b c")) == 3
    server.count_tokens = lambda request: 100 * len(request.messages)
    assert await twin("count_tokens", conversation) == 200
    assert [request.prompt for request in server.count_requests] == [conversation, RawText("a b c"), conversation]
    server.reply("ok")
    assert (await twin.generate("Hello")).usage.prompt_tokens == 100


async def test_the_model_the_latency_and_the_health_can_be_set(twin: Twin, server: FakeServer) -> None:
    model = await twin("model")
    assert {"sampling.top_k", "constraint.choices", "messages", "continue_from.text"} <= set(model.features)
    server.model = ModelInfo(model="m", adapters=("a", "b"), limits=Limits(context_tokens=5))
    assert await twin("model") == server.model
    assert (await twin("latency")).answers == 0
    server.latency = Latency(window=60.0, queue=Quantiles(p50=0.5), aborts={"deadline": 2}, uptime=9.0)
    assert await twin("latency") == server.latency
    assert await twin("health") is Health.SERVING
    server.health = Health.NOT_SERVING
    assert await twin("health") is Health.NOT_SERVING


async def test_every_call_can_fail(kind: Kind, server: FakeServer) -> None:
    error = UnavailableError("loading", reason="WARMING_UP")

    def refuse(_: Request) -> int:
        raise error

    server.model = server.latency = error
    server.count_tokens = refuse
    async with open_twin(kind, server.target, retry=None) as twin:
        for method, *arguments in (["model"], ["latency"], ["count_tokens", "x"]):
            with pytest.raises(RpcError) as raised:
                await twin(method, *arguments)
            assert raised.value.reason == "WARMING_UP"


async def test_a_closed_server_cannot_be_reached(kind: Kind) -> None:
    with FakeServer(SKY) as server:
        async with open_twin(kind, server.target, retry=RetryPolicy(wait_for_ready=False)) as twin:
            await twin.generate("Why?")
            server.close()
            with pytest.raises(UnavailableError):
                await twin.generate("Why?")


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_server_of_its_own_that_clients_find(turn: int, doherty_server: FakeServer) -> None:
    doherty_server.reply("Hello!")
    with Client() as client:
        assert client.generate(f"Hi {turn}").text == "Hello!"
    assert [request.prompt for request in doherty_server.requests] == [f"Hi {turn}"]
