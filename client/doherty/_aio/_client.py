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
from doherty._core._request import plan_request, shows_parameters
from doherty._core._results import Generation
from doherty._core._retry import RetryPolicy
from doherty._core._settings import NOT_GIVEN, CallOptions, NotGiven, Settings, Timeout

if TYPE_CHECKING:
    import grpc.aio

    from doherty._aio._map import AsyncMap
    from doherty._core._actions import KeySource
    from doherty._core._channel import ChannelOptions
    from doherty._core._deployment import Latency, ModelInfo
    from doherty._core._health import Health
    from doherty._core._metadata import Metadata
    from doherty._core._options import Parameters
    from doherty._core._schema import ParsedT, SchemaAdapter
    from doherty._core._tls import TLSConfig

    ApiKey = str | KeySource | None
    Interceptor = grpc.aio.ClientInterceptor

_DEFAULT_RETRY = RetryPolicy()


class AsyncClient:
    """Talks to one Doherty server, or to several that serve the same, from one event loop.

    The loop is the one that runs when it is first used. It is an asynchronous context manager; without one, `close` it
    when it is not needed any more. Every method raises a DohertyError for what goes wrong beyond this process, and
    TypeError or ValueError for what cannot be sent.
    """

    def __init__(  # noqa: PLR0913 - what a connection has, by name
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
        """Does nothing yet: the first call connects, and binds the client to its event loop.

        Args:
            target: The server, as "host:port", or several of them as a sequence or separated by commas: a call goes to
                the one with the fewest in flight, and one that is not available is left out. Several servers behind one
                name in DNS take turns. By default the environment's DOHERTY_TARGET, else localhost:50051.
            api_key: Says who calls; or a callable that returns it, for a key that changes: called for every attempt,
                a coroutine function on the event loop, any other in a thread, so that it may block. By default the
                environment's DOHERTY_API_KEY.
            tls: True encrypts the connection, TLSConfig says how. By default it is encrypted if the environment has
                DOHERTY_TLS_CA, the path of the certificates to trust.
            insecure: Allows that a key is sent unencrypted to another machine.
            timeout: The seconds after which a call is given up, for calls that do not say; None waits without end. As
                long, a call waits for a server that is not there: see `RetryPolicy.wait_for_ready`.
            retry: When a call that failed is made again; None never does.
            resume: Whether a stream that loses its server goes on at another one, or at the same one started again.
            weighted: Whether several servers behind one name get calls by how busy they say they are, rather than in
                turn: a slow one then gets fewer.
            metadata: Goes with every call, as a mapping or as pairs. The value of a name that ends with "-bin" is
                bytes, any other is printable ASCII. It is not kept from going unencrypted, as the key is.
            interceptors: gRPC's, of which the first is the outermost. They see every attempt of a call.
            channel_options: gRPC's, as a mapping or as pairs. They stand in place of ours of the same name.
            credentials: gRPC's, in place of `tls`, for what that cannot say.
            multiplex: Whether all requests to a target share one RPC, MultiplexGenerate: with many at a time, that
                costs both sides a fraction. A number is how many requests an RPC carries before another one is opened:
                a proxy, or a name with several servers, sends each RPC to one server. True is 64 where the target is
                a name, else without end.

        Raises:
            OSError: A certificate or its key cannot be read.
            TypeError: A parameter has a wrong type.
            ValueError: A parameter cannot be used, or the key would be sent unencrypted.
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
        """The server that the client talks to, or several separated by commas."""
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
        """A client with other options on the same connections; what is left out stays as it is.

        This client owns the connections: closing it ends the calls of both. Closing the other one ends no call, and
        only has it refuse new ones.

        Args:
            timeout: As in the constructor.
            retry: As in the constructor.
            max_retries: How many more times a call that failed may be made, in place of what `retry` says.
            metadata: Is added to this client's, and stands in place of what that has under the same name.
            api_key: As in the constructor.
            multiplex: As in the constructor.

        Raises:
            TypeError: An option has a wrong type.
            ValueError: An option cannot be used, or the key would be sent unencrypted.
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
        self, prompt: Prompt, *, schema: "type[ParsedT] | SchemaAdapter[ParsedT]", **parameters: "Unpack[Parameters]"
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
                conversation. `RawText` and `TokenIds` go around the chat template.
            system: The instructions to the model; by default the deployment's.
            temperature: 0 always takes the most probable token; by default the deployment's, and so is what follows.
            top_p: Samples from the smallest set of tokens whose probabilities add up to this. 1 is off.
            max_output_tokens: The most tokens that the answer may have.
            stop: A text, or several, that ends the answer and is cut off.
            seed: Makes sampling repeatable.
            schema: What the answer fits, and what `parsed` of the result is: a pydantic model or any other type that
                pydantic knows (`list[Person]`, a dataclass, a Literal), or a JSON Schema as a mapping or as JSON text.
                Names that a class does not list are not generated, unless its model says `extra="allow"`.
            adapter: The name of a LoRA adapter.
            time_limit: The seconds after which the answer ends with what there is.
            timeout: The seconds after which the call fails; None waits without end. By default the client's.
            first_token_timeout: The seconds after which the call fails if nothing of the answer has come.
            idle_timeout: The seconds after which the call fails if no more of the answer comes. With either of these
                two, the answer is streamed to this process, for only there its progress is seen.
            max_retries: How many more times a call that failed may be made; by default as the client's `retry` says.
            request_id: A label for the server's log; by default the server makes one up.
            metadata: Goes with this call besides the client's, and in place of what that has under the same name.
            options: What else can be asked for.

        Raises:
            RpcError: The call failed; its subclasses say how.
            ParseError: The answer does not fit the schema, most often because it was cut off.
        """
        planned = plan_request(prompt, schema=schema, **parameters)
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
        self, prompt: Prompt, *, schema: "type[ParsedT] | SchemaAdapter[ParsedT]", **parameters: "Unpack[Parameters]"
    ) -> "AsyncGenerationStream[ParsedT]": ...

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: object, **parameters: "Unpack[Parameters]"
    ) -> AsyncGenerationStream[Any]: ...

    @shows_parameters
    def stream_generate(
        self, prompt: Prompt, *, schema: object = None, **parameters: "Unpack[Parameters]"
    ) -> AsyncGenerationStream[Any]:
        """Generates one answer and hands it out while it comes into being.

        The request is sent at once; its failure is raised by entering the stream's block, which waits until the server
        has admitted it, or by reading the stream. The parameters are those of
        `generate`, and the timeout is that of the whole answer. The first token's and the idle timeout run while the
        caller waits for a delta, whatever happens in the meantime: also while the stream looks for another server.
        """
        return AsyncGenerationStream(self._pool.connected(), plan_request(prompt, schema=schema, **parameters))

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        schema: None = None,
        **parameters: "Unpack[Parameters]",
    ) -> "AsyncMap[None]": ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        schema: "type[ParsedT] | SchemaAdapter[ParsedT]",
        **parameters: "Unpack[Parameters]",
    ) -> "AsyncMap[ParsedT]": ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        schema: object,
        **parameters: "Unpack[Parameters]",
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
        """Generates one whole answer to each of many prompts, a bounded number at a time.

        Iterate over it with `async for`; each `MapResult` has the answer to a prompt, or the error in its place. What
        all requests would fail of, as a parameter of a wrong type or a closed client, is raised instead. The first
        step begins the requests; when the iteration ends early, those that run are cancelled.

        Args:
            prompts: Taken one by one as they are needed, so they may be many, or without end.
            concurrency: How many requests run at the same time. Four times as many may have been begun and not been
                read by the caller.
            ordered: Whether the results come in the order of the prompts, rather than as they are ready.
            schema: As for `generate`, and so are the other parameters.

        Raises:
            TypeError: `prompts` is no iterable, or one str.
            ValueError: `concurrency` is less than 1.
        """
        from doherty._aio._map import AsyncMap  # noqa: PLC0415 - most programs never ask

        def ask(prompt: Prompt) -> Awaitable[Generation[Any]]:
            return self.generate(prompt, schema=schema, **parameters)

        return AsyncMap(ask, prompts, concurrency=concurrency, ordered=ordered)

    async def count_tokens(  # noqa: PLR0913 - the parameters of a call, by name
        self,
        prompt: TextPrompt,
        *,
        system: str | None = None,
        model: str | None = None,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
    ) -> int:
        """Counts the tokens of a prompt as the model would read it, with the chat template where one applies."""
        options = CallOptions.check(timeout, max_retries, metadata)
        pool = self._pool.connected()
        call = _calls.count_tokens(pool.dispatch, prompt, system=system, model=model, options=options)
        return await pool.run(call)

    async def model(
        self,
        *,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
    ) -> "ModelInfo":
        """Tells what the server serves and what it can do; of several servers, one of them."""
        options = CallOptions.check(timeout, max_retries, metadata)
        pool = self._pool.connected()
        return await pool.run(_calls.model(pool.dispatch, options=options))

    async def latency(
        self,
        window: float | None = None,
        *,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
    ) -> "Latency":
        """Tells how fast the server has been over the last `window` seconds, by default over all that it keeps.

        Of several servers, one of them tells.
        """
        options = CallOptions.check(timeout, max_retries, metadata)
        pool = self._pool.connected()
        return await pool.run(_calls.latency(pool.dispatch, window, options=options))

    async def health(self, *, timeout: Timeout = NOT_GIVEN) -> "Health":
        """Asks the server once what it says of its health; several servers in turn, until one serves.

        Raises:
            UnavailableError: No server was reached.
        """
        from doherty._core._health import check_health  # noqa: PLC0415 - most programs never ask

        pool = self._pool.connected()
        return await pool.run(check_health(pool.dispatch, timeout=timeout))

    async def wait_ready(self, timeout: Timeout = NOT_GIVEN) -> None:
        """Returns when the server, or one of several, says that it serves.

        Raises:
            DeadlineExceededError: It did not within the timeout; the message has what was seen last.
        """
        from doherty._core._health import wait_ready  # noqa: PLC0415 - most programs never wait

        pool = self._pool.connected()
        await pool.run(wait_ready(pool.dispatch, timeout=timeout))

    async def close(self) -> None:
        """Cancels what runs and gives the connections up. A second time does nothing."""
        await self._pool.close()
