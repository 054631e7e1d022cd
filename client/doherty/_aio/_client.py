"""The client for asyncio."""

# ruff: noqa: ASYNC109 - the timeout is the call's deadline, which gRPC keeps and the server gets to know

from collections.abc import Awaitable, Iterable, Sequence
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from doherty._aio._lazy_pool import LazyPool
from doherty._aio._stream import AsyncGenerationStream
from doherty._core import _calls
from doherty._core._channel import check_interceptors
from doherty._core._prompt import Prompt, TextPrompt
from doherty._core._request import PlannedRequest, plan_request, shows_options, shows_parameters
from doherty._core._results import Generation
from doherty._core._retry import RetryPolicy
from doherty._core._settings import NOT_GIVEN, CallParameters, NotGiven, Settings, Timeout

if TYPE_CHECKING:
    import grpc.aio

    from doherty._aio._map import AsyncMap
    from doherty._core._actions import KeySource
    from doherty._core._channel import ChannelOptions
    from doherty._core._deployment import Latency, ModelInfo
    from doherty._core._health import Health
    from doherty._core._metadata import Metadata
    from doherty._core._options import MapParameters, Parameters
    from doherty._core._schema import ParsedT, Schema
    from doherty._core._tls import TLSConfig

    ApiKey = str | KeySource | None
    Interceptor = grpc.aio.ClientInterceptor

_DEFAULT_RETRY = RetryPolicy()


class AsyncClient:
    """Calls one Doherty server, or several that serve the same model, from one event loop.

    It belongs to the event loop in which it is first used. It is an asynchronous context manager. If you use no `async
    with` block, call `close` when you no longer need it. Every method raises a DohertyError if the call fails, and
    TypeError or ValueError if the request cannot be sent.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments
        self,
        target: str | Sequence[str] | None = None,
        *,
        api_key: "ApiKey" = None,
        tls: "TLSConfig | bool | None" = None,
        insecure: bool = False,
        timeout: float | None = 60.0,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
        resume: bool = True,
        weighted: bool = False,
        metadata: "Metadata | None" = None,
        interceptors: "Sequence[Interceptor]" = (),
        channel_options: "ChannelOptions | None" = None,
        credentials: "grpc.ChannelCredentials | None" = None,
        multiplex: bool | int = False,
    ) -> None:
        """Stores the options. The first call connects, and binds the client to its event loop.

        Args:
            target: The server, as "host:port", or several servers, as a sequence or separated by commas. Each call goes
                to the server with the fewest calls in flight; unavailable servers are skipped. Servers with the same
                DNS name get calls in turn (`round_robin`). The default is the environment variable DOHERTY_TARGET, or
                else localhost:50051.
            api_key: The key, or a callable that returns it, for keys that change. The callable is called for every
                attempt: a coroutine function on the event loop, any other in a thread, so that it may block. The
                default is the environment variable DOHERTY_API_KEY.
            tls: True encrypts the connection; a TLSConfig also sets certificates. By default, the connection is
                encrypted if the environment variable DOHERTY_TLS_CA has the path of the certificates to trust.
            insecure: Whether the key may be sent to another machine without encryption.
            timeout: The default timeout of calls, in seconds; None means no limit. A call also waits this long for a
                server that is not there: see `RetryPolicy.wait_for_ready`.
            retry: When failed calls are retried; None means never.
            resume: Whether a stream that loses its server continues on another server, or on the same one after a
                restart.
            weighted: Whether servers with the same DNS name get calls according to the load that they report, so that a
                slow server gets fewer calls, instead of in turn.
            metadata: Metadata to send with every call, as a mapping or as pairs. If a name ends with "-bin", its value
                is bytes; all others are printable ASCII. Unlike the key, metadata may be sent without encryption.
            interceptors: gRPC interceptors, the outermost one first. They see every attempt of a call.
            channel_options: gRPC channel options, as a mapping or as pairs. They override our options of the same name.
            credentials: gRPC channel credentials, in place of `tls`, for settings that TLSConfig does not have.
            multiplex: Whether all requests to a target share one RPC, MultiplexGenerate. With many concurrent requests,
                this costs both sides much less CPU time. A number sets how many requests an RPC carries before another
                one is opened, because proxies and DNS names with several servers send each RPC to one server. True
                means 64 if the target is a name, else no limit.

        Raises:
            OSError: A certificate or its key cannot be read.
            TypeError: A parameter has a wrong type.
            ValueError: A parameter has an invalid value, or the key would be sent without encryption.
        """
        settings = Settings(
            target,
            api_key=api_key,
            tls=tls,
            insecure=insecure,
            timeout=timeout,
            retry=retry,
            resume=resume,
            weighted=weighted,
            metadata=metadata,
            interceptors=check_interceptors(interceptors, asynchronous=True),
            channel_options=channel_options,
            credentials=credentials,
        )
        self._pool = LazyPool(settings, multiplex=multiplex)

    def __repr__(self) -> str:
        return f"AsyncClient({self.target!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def target(self) -> str:
        """The server that the client calls, or several servers separated by commas."""
        return ",".join(self._pool.settings.targets)

    def with_options(  # noqa: PLR0913 - what a client may have otherwise, by name
        self,
        *,
        timeout: Timeout = NOT_GIVEN,
        retry: RetryPolicy | NotGiven | None = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
        api_key: "ApiKey | NotGiven" = NOT_GIVEN,
        multiplex: bool | int | NotGiven = NOT_GIVEN,
    ) -> Self:
        """Returns a client with other options on the same connections. Options that are left out do not change.

        This client owns the connections: closing it cancels the calls of both. Closing the new client cancels no calls,
        but the new client then refuses new calls.

        Args:
            timeout: As in the constructor.
            retry: As in the constructor.
            max_retries: Maximum number of retries of a call, in place of the number in `retry`.
            metadata: Metadata to add to this client's. It overrides entries with the same names.
            api_key: As in the constructor.
            multiplex: As in the constructor.

        Raises:
            TypeError: An option has a wrong type.
            ValueError: An option has an invalid value, or the key would be sent without encryption.
        """
        settings = self._pool.settings.with_options(
            timeout=timeout, retry=retry, max_retries=max_retries, metadata=metadata, api_key=api_key
        )
        chosen = self._pool.multiplex if isinstance(multiplex, NotGiven) else multiplex
        client = copy(self)
        client._pool = self._pool.derive(settings, multiplex=chosen)  # noqa: SLF001 - it is of this class
        return client

    @overload
    async def generate(
        self, prompt: Prompt, *, schema: None = None, **parameters: "Unpack[Parameters]"
    ) -> Generation[None]: ...

    @overload
    async def generate(
        self, prompt: Prompt, *, schema: "Schema[ParsedT]", **parameters: "Unpack[Parameters]"
    ) -> "Generation[ParsedT]": ...

    @overload
    async def generate(
        self, prompt: Prompt, *, schema: object, **parameters: "Unpack[Parameters]"
    ) -> Generation[Any]: ...

    @shows_parameters
    async def generate(  # noqa: D417 - it describes each of **parameters
        self, prompt: Prompt, *, schema: object = None, **parameters: "Unpack[Parameters]"
    ) -> Generation[Any]:
        """Generates one whole answer.

        Args:
            prompt: A str is one user message. A sequence of `Message` (or of mappings with role and content) is a
                conversation. `RawText` and `TokenIds` bypass the chat template.
            system: The instructions to the model. The default is the deployment's.
            temperature: 0 always takes the most probable token. The default is the deployment's, as for `top_p` and
                `max_output_tokens`.
            top_p: Samples from the smallest set of tokens whose probabilities add up to this. 1 turns it off.
            max_output_tokens: Maximum number of tokens in the answer.
            stop: One or more texts that end the answer. The stop text itself is removed.
            seed: Makes sampling repeatable.
            schema: The type of `parsed` in the result, which the answer must fit: a pydantic model or any other type
                that pydantic supports (`list[Person]`, a dataclass, a Literal), or a JSON Schema as a mapping or as
                text. Fields that a class does not define are not generated, unless its model has `extra="allow"`.
            adapter: The name of a LoRA adapter.
            time_limit: The seconds after which the server ends the answer and returns the part that it has generated.
            timeout: The seconds after which the call fails; None means no limit. The default is the client's.
            first_token_timeout: The seconds after which the call fails if no part of the answer has arrived.
            idle_timeout: The seconds after which the call fails if no further part of the answer arrives. If one of
                these two is set, the answer is streamed to this process, because only a stream shows its progress.
            max_retries: Maximum number of retries. The default is set by the client's `retry`.
            request_id: A label for the server's log. By default, the server creates one.
            metadata: Metadata to add to the client's for this call. It overrides entries with the same names.
            options: The less common parameters.

        Raises:
            RpcError: The call failed. Its subclasses show the cause.
            ParseError: The answer does not fit the schema, most often because it was cut off.
        """
        return await self._generate(plan_request(prompt, schema=schema, **parameters))

    async def _generate(self, planned: "PlannedRequest") -> Generation[Any]:
        pool = self._pool.connected()
        if planned.needs_stream:
            stream = AsyncGenerationStream[Any](pool, planned)
            try:
                return await stream.result()
            finally:
                await stream.close()
        return await pool.run(_calls.generate(pool.dispatch, planned))

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: None = None, **parameters: "Unpack[Parameters]"
    ) -> AsyncGenerationStream[None]: ...

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: "Schema[ParsedT]", **parameters: "Unpack[Parameters]"
    ) -> "AsyncGenerationStream[ParsedT]": ...

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: object, **parameters: "Unpack[Parameters]"
    ) -> AsyncGenerationStream[Any]: ...

    @shows_parameters
    def stream_generate(
        self, prompt: Prompt, *, schema: object = None, **parameters: "Unpack[Parameters]"
    ) -> AsyncGenerationStream[Any]:
        """Generates one answer, and streams it while it is generated.

        The request is sent immediately. Errors are raised when you enter the stream's `with` block, which waits until
        the server has admitted the request, or when you read the stream. The parameters are those of `generate`. The
        timeout covers the whole answer. The first-token timeout and the idle timeout count while the caller waits for a
        delta, even while the stream looks for another server.
        """
        return AsyncGenerationStream(self._pool.connected(), plan_request(prompt, schema=schema, **parameters))

    @overload
    def map(
        self, prompts: Iterable[Prompt], *, schema: None = None, **parameters: "Unpack[MapParameters]"
    ) -> "AsyncMap[None]": ...

    @overload
    def map(
        self, prompts: Iterable[Prompt], *, schema: "Schema[ParsedT]", **parameters: "Unpack[MapParameters]"
    ) -> "AsyncMap[ParsedT]": ...

    @overload
    def map(
        self, prompts: Iterable[Prompt], *, schema: object, **parameters: "Unpack[MapParameters]"
    ) -> "AsyncMap[Any]": ...

    def map(  # noqa: D417 - `generate` describes **parameters
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        schema: object = None,
        **parameters: "Unpack[Parameters]",
    ) -> "AsyncMap[Any]":
        """Generates one whole answer to each of many prompts, a limited number at a time.

        Iterate over it with `async for`. Each `MapResult` has the answer to a prompt, or its error: an
        InvalidRequestError if the prompt cannot be sent. An error that would affect all requests, such as a closed
        client, is raised instead. The first step of the iteration starts the requests. If the iteration ends early,
        running requests are cancelled.

        Args:
            prompts: Read one by one when they are needed, so the iterable may be long or infinite.
            concurrency: Maximum number of requests that run at the same time. Up to four times as many may have been
                started without their results having been read.
            ordered: Whether results come in the order of the prompts, instead of as soon as they are ready.
            schema: As in `generate`, like all other parameters.

        Raises:
            TypeError: `prompts` is not an iterable, or is a single str; or another parameter has a wrong type.
            ValueError: `concurrency` is less than 1, or another parameter cannot be sent.
        """
        from doherty._aio._map import AsyncMap  # noqa: PLC0415 - most programs never ask

        # Whatever is wrong apart from the prompts.
        plan_request("", schema=schema, **parameters)

        def ask(prompt: Prompt) -> Awaitable[Generation[Any]]:
            return self._generate(plan_request(prompt, schema=schema, **parameters))

        return AsyncMap(ask, prompts, concurrency=concurrency, ordered=ordered)

    @shows_options
    async def count_tokens(
        self,
        prompt: TextPrompt,
        *,
        system: str | None = None,
        model: str | None = None,
        **options: "Unpack[CallParameters]",
    ) -> int:
        """Counts the tokens of a prompt as the model would read it, including the chat template if one is used."""
        pool = self._pool.connected()
        call = _calls.count_tokens(pool.dispatch, prompt, system, model, options)
        return await pool.run(call)

    @shows_options
    async def model(
        self,
        **options: "Unpack[CallParameters]",
    ) -> "ModelInfo":
        """Returns the server's model and features. If there are several servers, one of them is asked."""
        pool = self._pool.connected()
        return await pool.run(_calls.model(pool.dispatch, options))

    @shows_options
    async def latency(
        self,
        window: float | None = None,
        **options: "Unpack[CallParameters]",
    ) -> "Latency":
        """Returns the latency of the server over the last `window` seconds, or over all that it keeps.

        If there are several servers, one of them is asked.
        """
        pool = self._pool.connected()
        return await pool.run(_calls.latency(pool.dispatch, window, options))

    async def health(self, *, timeout: Timeout = NOT_GIVEN) -> "Health":
        """Asks the server for its health once. If there are several servers, asks them in turn until one is healthy.

        Raises:
            UnavailableError: No server was reached.
        """
        from doherty._core._health import check_health  # noqa: PLC0415 - most programs never ask

        pool = self._pool.connected()
        return await pool.run(check_health(pool.dispatch, timeout=timeout))

    async def wait_ready(self, timeout: Timeout = NOT_GIVEN) -> None:
        """Waits until the server, or one of several, reports that it is healthy.

        Raises:
            DeadlineExceededError: No server did so within the timeout. The message contains the last error or state.
        """
        from doherty._core._health import wait_ready  # noqa: PLC0415 - most programs never wait

        pool = self._pool.connected()
        await pool.run(wait_ready(pool.dispatch, timeout=timeout))

    async def close(self) -> None:
        """Cancels all calls and closes the connections. Calling it again has no effect."""
        await self._pool.close()
