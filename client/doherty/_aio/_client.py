"""The client for asyncio."""

# ruff: noqa: ASYNC109 - the timeout is the call's deadline, which gRPC keeps and the server gets to know

from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from doherty._aio._connection import AsyncConnection
from doherty._aio._stream import AsyncGenerationStream
from doherty._core._channel import choose_target
from doherty._core._errors import ClientClosedError
from doherty._core._from_wire import generation_from_reply
from doherty._core._options import GenerateOptions
from doherty._core._prompt import Prompt, TextPrompt
from doherty._core._request import Schema, count_request, generate_request, latency_request
from doherty._core._results import Generation
from doherty._core._timeout import CLIENT_DEFAULT, Timeout, check_timeout, choose_timeout
from doherty.v1.model_pb2 import GetModelRequest

if TYPE_CHECKING:
    from doherty._core._deployment import Latency, ModelInfo


class AsyncClient:
    """Talks to one Doherty server from one event loop, the one that runs when it is first used.

    It is an asynchronous context manager; without one, `close` it when it is not needed any more. Every method
    raises a DohertyError for what goes wrong beyond this process, and TypeError or ValueError for what cannot be sent.
    """

    def __init__(self, target: str | None = None, *, timeout: float | None = 60.0) -> None:
        """Does nothing yet: the first call connects, and binds the client to its event loop.

        Args:
            target: The server, as "host:port". By default the environment's DOHERTY_TARGET, else localhost:50051.
            timeout: The seconds after which a call is given up, for calls that do not say; None waits without end.
        """
        self._timeout = check_timeout(timeout)
        self._target = choose_target(target)
        self._connection: AsyncConnection | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def target(self) -> str:
        """The server that the client talks to."""
        return self._target

    async def generate(  # noqa: PLR0913 - what a request can say, by name
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: Schema | None = None,
        adapter: str | None = None,
        time_limit: float | None = None,
        timeout: Timeout = CLIENT_DEFAULT,
        request_id: str | None = None,
        options: GenerateOptions | None = None,
    ) -> Generation:
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
            schema: A JSON Schema, as a mapping or as JSON text, that the answer fits.
            adapter: The name of a LoRA adapter.
            time_limit: The seconds after which the answer ends with what there is.
            timeout: The seconds after which the call fails; None waits without end. By default the client's.
            request_id: A label for the server's log; by default the server makes one up.
            options: What else can be asked for.

        Raises:
            RpcError: The call failed; its subclasses say how.
        """
        request = generate_request(
            prompt,
            system=system,
            temperature=temperature,
            top_p=top_p,
            max_output_tokens=max_output_tokens,
            stop=stop,
            seed=seed,
            schema=schema,
            adapter=adapter,
            time_limit=time_limit,
            request_id=request_id,
            options=options,
        )
        connection = self._connected()
        started = perf_counter()
        reply = await connection.call(connection.generation.Generate, request, self._seconds(timeout))
        return generation_from_reply(reply, perf_counter() - started)

    def stream_generate(  # noqa: PLR0913 - as `generate`
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_output_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        schema: Schema | None = None,
        adapter: str | None = None,
        time_limit: float | None = None,
        timeout: Timeout = CLIENT_DEFAULT,
        request_id: str | None = None,
        options: GenerateOptions | None = None,
    ) -> AsyncGenerationStream:
        """Generates one answer and hands it out while it comes into being.

        The request is sent at once; its failure is raised by reading the stream. The parameters are those of
        `generate`, and the timeout is that of the whole answer.
        """
        request = generate_request(
            prompt,
            system=system,
            temperature=temperature,
            top_p=top_p,
            max_output_tokens=max_output_tokens,
            stop=stop,
            seed=seed,
            schema=schema,
            adapter=adapter,
            time_limit=time_limit,
            request_id=request_id,
            options=options,
        )
        return AsyncGenerationStream(self._connected(), request, self._seconds(timeout))

    async def count_tokens(
        self,
        prompt: TextPrompt,
        *,
        system: str | None = None,
        model: str | None = None,
        timeout: Timeout = CLIENT_DEFAULT,
    ) -> int:
        """Counts the tokens of a prompt as the model would read it, with the chat template where one applies."""
        request = count_request(prompt, system=system, model=model)
        connection = self._connected()
        reply = await connection.call(connection.generation.CountTokens, request, self._seconds(timeout))
        return reply.prompt_tokens

    async def model(self, *, timeout: Timeout = CLIENT_DEFAULT) -> "ModelInfo":
        """Tells what the server serves and what it can do."""
        from doherty._core._deployment_from_wire import model_from_wire  # noqa: PLC0415 - most programs never ask

        connection = self._connected()
        method = connection.generation.GetModel
        return model_from_wire(await connection.call(method, GetModelRequest(), self._seconds(timeout)))

    async def latency(self, window: float | None = None, *, timeout: Timeout = CLIENT_DEFAULT) -> "Latency":
        """Tells how fast the server has been over the last `window` seconds, by default over all that it keeps."""
        from doherty._core._deployment_from_wire import latency_from_wire  # noqa: PLC0415 - most programs never ask

        request = latency_request(window)
        connection = self._connected()
        method = connection.latency.GetLatency
        return latency_from_wire(await connection.call(method, request, self._seconds(timeout)))

    async def wait_ready(self, timeout: Timeout = CLIENT_DEFAULT) -> None:
        """Returns when the server says that it serves.

        Raises:
            DeadlineExceededError: It did not within the timeout; the message has what was seen last.
        """
        await self._connected().wait_ready(self._seconds(timeout))

    async def close(self) -> None:
        """Cancels what runs and gives the connection up. A second time does nothing."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()

    def _connected(self) -> AsyncConnection:
        """The connection, made by the first call because a channel needs the event loop that it will run on."""
        if self._connection is None:
            if self._closed:
                raise ClientClosedError("The client is closed: make a new one.")
            self._connection = AsyncConnection(self._target)
        self._connection.check_usable()
        return self._connection

    def _seconds(self, timeout: Timeout) -> float | None:
        return choose_timeout(timeout, self._timeout)
