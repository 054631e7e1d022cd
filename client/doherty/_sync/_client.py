"""The client for ordinary code."""

from collections.abc import Callable, Sequence
from contextlib import closing
from copy import copy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from doherty._core import _calls
from doherty._core._channel import check_interceptors
from doherty._core._prompt import Prompt, TextPrompt
from doherty._core._request import plan_request, shows_parameters
from doherty._core._results import Generation
from doherty._core._retry import RetryPolicy
from doherty._core._settings import NOT_GIVEN, CallOptions, NotGiven, Settings, Timeout
from doherty._sync._pool import Pool
from doherty._sync._stream import GenerationStream

if TYPE_CHECKING:
    import grpc

    from doherty._core._channel import ChannelOptions, Interceptor
    from doherty._core._deployment import Latency, ModelInfo
    from doherty._core._health import Health
    from doherty._core._metadata import Metadata
    from doherty._core._options import Parameters
    from doherty._core._schema import ParsedT, SchemaAdapter
    from doherty._core._tls import TLSConfig

    ApiKey = str | Callable[[], str] | None

_DEFAULT_RETRY = RetryPolicy()


class Client:
    """Talks to one Doherty server, or to several that serve the same. Threads may share it.

    It is a context manager; without one, `close` it when it is not needed any more. Every method raises a
    DohertyError for what goes wrong beyond this process, and TypeError or ValueError for what cannot be sent.
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
    ) -> None:
        """Prepares its channels; the first call connects.

        Args:
            target: The server, as "host:port", or several of them as a sequence or separated by commas: a call goes to
                the one with the fewest in flight, and one that is not available is left out. Several servers behind one
                name in DNS take turns. By default the environment's DOHERTY_TARGET, else localhost:50051.
            api_key: Says who calls; or a callable that returns it, for a key that changes: called for every attempt,
                in the thread of the call. By default the environment's DOHERTY_API_KEY.
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
            interceptors=check_interceptors(interceptors, asynchronous=False),
            channel_options=channel_options,
            credentials=credentials,
        )
        self._pool = Pool(settings)

    def __repr__(self) -> str:
        return f"Client({self.target!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def target(self) -> str:
        """The server that the client talks to, or several separated by commas."""
        return ",".join(self._pool.dispatch.settings.targets)

    def with_options(
        self,
        *,
        timeout: Timeout = NOT_GIVEN,
        retry: RetryPolicy | NotGiven | None = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
        api_key: "ApiKey | NotGiven" = NOT_GIVEN,
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

        Raises:
            TypeError: An option has a wrong type.
            ValueError: An option cannot be used, or the key would be sent unencrypted.
        """
        settings = self._pool.dispatch.settings.with_options(
            timeout=timeout, retry=retry, max_retries=max_retries, metadata=metadata, api_key=api_key
        )
        client = copy(self)
        client._pool = self._pool.derive(settings)  # noqa: SLF001 - it is of this class
        return client

    @overload
    def generate(
        self, prompt: Prompt, *, schema: None = None, **parameters: "Unpack[Parameters]"
    ) -> Generation[None]: ...

    @overload
    def generate(
        self, prompt: Prompt, *, schema: "type[ParsedT] | SchemaAdapter[ParsedT]", **parameters: "Unpack[Parameters]"
    ) -> "Generation[ParsedT]": ...

    @overload
    def generate(self, prompt: Prompt, *, schema: object, **parameters: "Unpack[Parameters]") -> Generation[Any]: ...

    @shows_parameters
    def generate(  # noqa: D417 - it describes each of **parameters
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
        if planned.needs_stream:
            with closing(GenerationStream[Any](self._pool, planned)) as stream:
                return stream.result()
        return self._pool.run(_calls.generate(self._pool.dispatch, planned))

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: None = None, **parameters: "Unpack[Parameters]"
    ) -> GenerationStream[None]: ...

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: "type[ParsedT] | SchemaAdapter[ParsedT]", **parameters: "Unpack[Parameters]"
    ) -> "GenerationStream[ParsedT]": ...

    @overload
    def stream_generate(
        self, prompt: Prompt, *, schema: object, **parameters: "Unpack[Parameters]"
    ) -> GenerationStream[Any]: ...

    @shows_parameters
    def stream_generate(
        self, prompt: Prompt, *, schema: object = None, **parameters: "Unpack[Parameters]"
    ) -> GenerationStream[Any]:
        """Generates one answer and hands it out while it comes into being.

        The request is sent at once; its failure is raised by entering the stream's block, which waits until the server
        has admitted it, or by reading the stream. The parameters are those of
        `generate`, and the timeout is that of the whole answer. The first token's and the idle timeout run while the
        caller waits for a delta, whatever happens in the meantime: also while the stream looks for another server.
        """
        return GenerationStream(self._pool, plan_request(prompt, schema=schema, **parameters))

    def count_tokens(  # noqa: PLR0913 - the parameters of a call, by name
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
        call = _calls.count_tokens(self._pool.dispatch, prompt, system=system, model=model, options=options)
        return self._pool.run(call)

    def model(
        self,
        *,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        metadata: "Metadata | None" = None,
    ) -> "ModelInfo":
        """Tells what the server serves and what it can do; of several servers, one of them."""
        options = CallOptions.check(timeout, max_retries, metadata)
        return self._pool.run(_calls.model(self._pool.dispatch, options=options))

    def latency(
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
        return self._pool.run(_calls.latency(self._pool.dispatch, window, options=options))

    def health(self, *, timeout: Timeout = NOT_GIVEN) -> "Health":
        """Asks the server once what it says of its health; several servers in turn, until one serves.

        Raises:
            UnavailableError: No server was reached.
        """
        from doherty._core._health import check_health  # noqa: PLC0415 - most programs never ask

        return self._pool.run(check_health(self._pool.dispatch, timeout=timeout))

    def wait_ready(self, timeout: Timeout = NOT_GIVEN) -> None:
        """Returns when the server, or one of several, says that it serves.

        Raises:
            DeadlineExceededError: It did not within the timeout; the message has what was seen last.
        """
        from doherty._core._health import wait_ready  # noqa: PLC0415 - most programs never wait

        self._pool.run(wait_ready(self._pool.dispatch, timeout=timeout))

    def close(self) -> None:
        """Cancels what runs and gives the connections up. A second time does nothing."""
        self._pool.close()
