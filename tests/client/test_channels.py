"""Interceptors, options and credentials that a caller passes to the channels of both clients."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import grpc.experimental
import pytest
import trustme

from doherty import AsyncClient, Client
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from support.server import ServerProcess
from support.serving import answer, serve
from support.twins import ENDLESS, Kind, open_twin


class Unary(grpc.UnaryUnaryClientInterceptor):
    """Records the methods of unary calls."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.rpartition("/")[2])
        return continuation(client_call_details, request)


class Stream(grpc.UnaryStreamClientInterceptor):
    """Records the methods of streams."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.rpartition("/")[2])
        return continuation(client_call_details, request)


class Generator(grpc.UnaryStreamClientInterceptor):
    """Returns a generator, which nobody can cancel; this is a mistake of the caller."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        yield from continuation(client_call_details, request)


class AsyncUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.decode().rpartition("/")[2])
        return await continuation(client_call_details, request)


class AsyncStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method.decode().rpartition("/")[2])
        return await continuation(client_call_details, request)


class AsyncMultiplex(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        self.seen.append(client_call_details.method.decode().rpartition("/")[2])
        return await continuation(client_call_details, request_iterator)


def _interceptors(kind: Kind, seen: list[str]) -> list[Any]:
    if kind == "Client":
        return [Unary(seen), Stream(seen)]
    return [AsyncUnary(seen), AsyncStream(seen), AsyncMultiplex(seen)]


async def test_interceptors_see_every_call(kind: Kind, synthetic_server: ServerProcess) -> None:
    seen: list[str] = []
    async with open_twin(kind, synthetic_server.target, interceptors=_interceptors(kind, seen)) as twin:
        aborts = await twin.aborts()
        whole, again = [await twin.generate("Hi", temperature=0, max_output_tokens=8) for _ in range(2)]
        streamed = await twin.stream("Hi", temperature=0, max_output_tokens=8).result()
        endless = twin.stream("Hi", **ENDLESS)
        await endless.next()
        await endless.close()
        await twin.wait_for_aborts(aborts + 1)
    assert whole.text == again.text == streamed.text
    seen = [name for name in seen if name not in ("GetLatency", "GetModel")]
    separate = ["Generate", "Generate", "StreamGenerate", "StreamGenerate"]
    assert seen == (["MultiplexGenerate"] if kind == "multiplex" else separate)


async def test_interceptors_see_many_requests_that_run_at_the_same_time(synthetic_server: ServerProcess) -> None:
    seen: list[str] = []
    interceptors = _interceptors("multiplex", seen)
    async with AsyncClient(synthetic_server.target, interceptors=interceptors, multiplex=True) as client:
        answers = await asyncio.gather(*(client.generate("Hi", seed=1, max_output_tokens=8) for _ in range(20)))
    assert len({answer.text for answer in answers}) == 1
    assert seen.count("MultiplexGenerate") == 1


async def test_interceptors_see_every_request_if_each_has_its_own_rpc(synthetic_server: ServerProcess) -> None:
    seen: list[str] = []
    interceptors = _interceptors("multiplex", seen)
    async with AsyncClient(synthetic_server.target, interceptors=interceptors, multiplex=True) as client:
        one_each = client.with_options(multiplex=1)
        for _ in range(2):
            await one_each.generate("Hi", max_output_tokens=1)
    assert seen == ["MultiplexGenerate"] * 2


async def test_interceptors_see_each_attempt_as_a_call(kind: Kind) -> None:
    def handler(_: object, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if len(serving.requests) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return iter(answer())

    seen: list[str] = []
    with serve(handler) as serving:
        async with open_twin(kind, serving.target, interceptors=_interceptors(kind, seen)) as twin:
            assert str(await twin.generate("Hi")) == "fine"
    assert seen == (["MultiplexGenerate"] if kind == "multiplex" else ["Generate", "Generate"])


async def test_an_error_of_an_interceptor_is_raised_unchanged(kind: Kind, synthetic_server: ServerProcess) -> None:
    class Refusing(Unary):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ARG002
            raise LookupError("not today")

    class AsyncRefusing(AsyncUnary):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ARG002
            raise LookupError("not today")

    class MultiplexRefusing(AsyncMultiplex):
        async def intercept_stream_stream(
            self,
            continuation: Any,  # noqa: ARG002
            client_call_details: Any,  # noqa: ARG002
            request_iterator: Any,  # noqa: ARG002
        ) -> Any:
            raise LookupError("not today")

    refusing = [Refusing([])] if kind == "Client" else [AsyncRefusing([]), MultiplexRefusing([])]
    async with open_twin(kind, synthetic_server.target, interceptors=refusing) as twin:
        for method, *arguments in (["model"], ["generate", "Hi"]):
            with pytest.raises(LookupError, match="not today"):
                await twin(method, *arguments)


def test_interceptors_of_the_other_kind_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes those of grpc\.$"):
        Client("localhost:1", interceptors=[AsyncUnary([])])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"takes those of grpc\.aio\.$"):
        AsyncClient("localhost:1", interceptors=[Unary([])])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


def test_an_interceptor_that_returns_a_generator_is_refused(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target, interceptors=[Generator()]) as client:
        with pytest.raises(TypeError, match="An interceptor returned a generator"):
            client.stream_generate("Hi").result()
        assert str(client.generate("Hi", max_output_tokens=1)) != ""


async def test_options_of_the_caller_replace_ours(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        options = {"grpc.primary_user_agent": "mine/1"}
        async with open_twin(kind, serving.target, channel_options=options) as twin:
            await twin.generate("Hi")
        async with open_twin(kind, serving.target, channel_options=tuple(options.items())) as twin:
            await twin.generate("Hi")
    agents = [str(metadata["user-agent"]) for metadata in serving.metadata]
    assert all(agent.startswith("mine/1 ") and "doherty" not in agent for agent in agents)
    assert len(agents) == 2


@pytest.mark.parametrize("wrong", [["grpc.x"], {7: 1}, {"grpc.x": None}, 7])
def test_invalid_options_are_refused(wrong: Any) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(TypeError):
            client("localhost:1", channel_options=wrong)


async def test_credentials_of_the_caller_are_used(kind: Kind) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    pairs = [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())]
    trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())

    def token(_: object, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback((("x-token", "of a plugin"),), None)

    plugin = grpc.metadata_call_credentials(token)  # type: ignore[arg-type] # a function is a plugin
    credentials = grpc.composite_channel_credentials(trusting, plugin)
    with serve(lambda _, __: iter(answer()), credentials=grpc.ssl_server_credentials(pairs)) as serving:
        async with open_twin(kind, serving.target, credentials=credentials, api_key="key") as twin:
            await twin.generate("Hi")
    assert (serving.metadata[0]["x-token"], serving.metadata[0]["authorization"]) == ("of a plugin", "Bearer key")


def test_credentials_that_do_not_fit_are_refused() -> None:
    plaintext = grpc.experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]
    for client in (Client, AsyncClient):
        with pytest.raises(ValueError, match="unencrypted"):
            client("gpu:1", credentials=plaintext, api_key="key")
        with pytest.raises(ValueError, match="exclude each other"):
            client("gpu:1", credentials=grpc.ssl_channel_credentials(), tls=True)
        with pytest.raises(TypeError, match="credentials="):
            client("gpu:1", credentials="yes")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        client("gpu:1", credentials=grpc.ssl_channel_credentials(), api_key="key")
