"""The one interceptor: what every RPC goes through, around the handler of its method."""

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from doherty_service._errors import UnauthenticatedError, UnsupportedMethodError, pushback, to_status
from doherty_service.admission import Shares
from doherty_service.rpc._end_watch import EndWatch
from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._receiving import ReceiveWatch, RequestEnd
from doherty_service.rpc._reporter import Reporter
from doherty_service.rpc._strangers import Strangers
from doherty_service.security import ANYBODY, Caller, Keyring
from doherty_service.telemetry import MULTIPLEX, RequestRecord, new_key

if TYPE_CHECKING:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
    Context = grpc.aio.ServicerContext

Behavior = Callable[[Any, Any], Awaitable[Any]]
"""A handler's coroutine: takes the request, or the iterator of requests, and the record or context of the RPC."""

Respond = Callable[[Any, Context, RequestRecord], Awaitable[Any]]
"""Answers an RPC: takes the iterator of its requests, its context and its record, and returns the reply."""

_NO_SERVICES: Mapping[str, Shares] = MappingProxyType({})

_OWN_SERVICES = "/doherty."
_LOAD = "endpoint-load-metrics-bin"
"""The trailing metadata with the server's load, as gRPC's proposal A51 names it."""
_ATTEMPTS = "doherty-attempts"
"""The metadata of a request that was sent before. gRPC's core keeps what its own retries have for it to itself."""
_TRYING_SINCE = "doherty-trying-since-ms"
"""The metadata that says for how many milliseconds the caller has been trying: clocks differ, so it is no time."""

_MOST_DIGITS = 9
_TELL_SECONDS = 1.0
"""How long a handler stays for a status to leave."""


class _StatusNotReadError(grpc.aio.AbortError):
    """The caller has not read the messages before the status. It gets the status when it reads on."""


class LatencyInterceptor(grpc.aio.ServerInterceptor):
    """Measures every RPC to its terminal status.

    So that measuring costs little, one coroutine does all that an RPC needs besides its handler: it gives the RPC a
    record, authenticates the caller, reads and parses the request, maps errors to a status, and reports how it ended.
    Each handler is wrapped once per method, not once per call.
    """

    def __init__(  # noqa: PLR0913 - what an RPC meets on its way
        self,
        reporter: Reporter,
        receive_watch: ReceiveWatch,
        *,
        keyring: Keyring | None = None,
        open_services: Collection[str] = (),
        costly_services: Mapping[str, Shares] = _NO_SERVICES,
        accept: Callable[[str], None] = lambda _: None,
        refusals: Counter[str] | None = None,
        load: Callable[[], bytes] | None = None,
        own_services: Collection[str] = (),
    ) -> None:
        """Asks for a key of `keyring`, if there is one, on all services but `open_services` (full names).

        `accept` is told the peer (gRPC's name of a connection) of each call that was let in. Callers without a key who
        ask for too much are counted in `refusals`. Of `costly_services`, every key has its share of calls at a time,
        and they count against its limits; the servicers of the contract see to that themselves. What `load` returns
        goes with the status of each RPC of the contract whose caller had a key, or needed none. The handlers of
        `own_services` (full names) get the record and return bytes, as those of the contract do.
        """
        self.end_watch = EndWatch(reporter)
        self._reporter = reporter
        self._receive_watch = receive_watch
        self._keyring = keyring
        self._accept = accept
        self._open_services = frozenset(open_services)
        self._strangers = Strangers(Counter() if refusals is None else refusals)
        self._costly_services = costly_services
        self._load = load
        self._own = (_OWN_SERVICES, *(f"/{name}/" for name in own_services))
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Finds the handler of a method; for one that nobody serves, one that says so to those who may know."""
        name = handler_call_details.method
        if name in self._handlers:
            return self._handlers[name]
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._wrap(_UNKNOWN, name)
        self._handlers[name] = self._wrap(handler, name)
        return self._handlers[name]

    def _wrap(self, handler: Handler, name: str) -> Handler:
        """The handler with all that surrounds it. It gets the request as bytes that nobody has read yet."""
        is_own = name.startswith(self._own)
        serve = self._serving(handler, name, is_own=is_own)
        end_watch = self.end_watch
        load = self._load if is_own else None

        async def run(messages: Any, context: Context) -> Any:
            record = _begin(name, context)
            code = grpc.StatusCode.UNKNOWN
            try:
                reply = await serve(messages, context, record)
                code = grpc.StatusCode.OK
                context.set_trailing_metadata(_trailing(record, load))
            except _StatusNotReadError:
                code = _status_code(context)
                raise asyncio.CancelledError from None  # the one end that gRPC does not report as a fault of ours
            except grpc.aio.AbortError:
                code = _status_code(context)
                raise
            except (asyncio.CancelledError, GeneratorExit):
                code = note_leaving(record)
                raise
            except grpc.aio.InternalError:
                # The caller went away during a write; gRPC would log that as an error, with its stack.
                code = note_leaving(record)
                raise asyncio.CancelledError from None
            finally:
                end_watch.add(record, code.name)
            if reply is not None:
                end_watch.follow_reply()
            return reply

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(run, None, None if is_own else handler.response_serializer)

    def _serving(self, handler: Handler, name: str, *, is_own: bool) -> Respond:
        """What authenticates the caller of a method and answers it, and makes a status of what is raised."""
        keyring = None if name[1:].partition("/")[0] in self._open_services else self._keyring
        lets_in = is_own or keyring is not None
        respond = self._responding(handler, name) if is_own else self._responding_elsewhere(handler, name)
        load = self._load if is_own else None
        begin, accept = self._reporter.begin, self._accept

        async def serve(messages: Any, context: Context, record: RequestRecord) -> Any:
            metadata: Any = context.invocation_metadata()
            begin(record, metadata)
            record.is_stranger = keyring is not None
            try:
                if keyring is not None:
                    await keyring.refresh()
                    record.caller = keyring.authenticate(metadata)
                    record.is_stranger = False
                if lets_in:
                    accept(record.peer)
                record.attempt = 1 + _number(metadata, _ATTEMPTS)
                record.tried_for = _number(metadata, _TRYING_SINCE) / 1000
                reply = await respond(messages, context, record)
            except (grpc.aio.AbortError, grpc.aio.InternalError):
                # The handler has set its own status, as the health service does, or the transport broke in a write.
                raise
            except NotImplementedError as error:
                # The generated base of a service raises it for a method that its servicer lacks, as health's List.
                is_lacking = context.code() is grpc.StatusCode.UNIMPLEMENTED
                await _abort(UnsupportedMethodError() if is_lacking else error, record, context, load)
            except Exception as error:  # noqa: BLE001 - the caller is told a status whatever it is, and the log all of it
                await _abort(error, record, context, load)
            else:
                return reply

        return serve

    def _responding(self, handler: Handler, name: str) -> Respond:
        """What reads and answers an RPC of the contract, whose handler gets the record."""
        behavior, parse = _coroutine(handler), _parser(handler)
        receive_watch = self._receive_watch

        async def respond(messages: Any, context: Context, record: RequestRecord) -> Any:
            if handler.request_streaming:
                # A MultiplexGenerate looks at the size of its messages before it parses them.
                return await behavior(messages, record)
            request = await receive_watch.receive(context, name, parse)
            # A request counts from when it is there, not from when its first byte is.
            record.received = time.monotonic()
            end = RequestEnd(context)
            try:
                answering = behavior(request, record)
                del request  # it may be megabytes
                reply = await answering
                await receive_watch.check_end(end)
                return reply
            finally:
                end.let_go()

        return respond

    def _responding_elsewhere(self, handler: Handler, name: str) -> Respond:
        """What reads and answers an RPC of another service, as the health service, which may be open to strangers."""
        behavior, parse = _coroutine(handler), _parser(handler)
        receive_watch = self._receive_watch
        shares = self._costly_services.get(name[1:].partition("/")[0])

        async def respond(_: Any, context: Context, record: RequestRecord) -> Any:
            with ExitStack() as stack:
                stranger = None
                if not await self._has_key(context):
                    stranger = stack.enter_context(self._strangers.calling(record.peer))
                if handler.request_streaming:
                    return await behavior(receive_watch.receive_each(context, name, parse, stranger), context)
                request = await receive_watch.receive(context, name, parse, stranger)
                record.received = time.monotonic()
                end = RequestEnd(context)
                stack.callback(end.let_go)
                if shares is not None:
                    stack.enter_context(_charged(record.caller, shares))
                reply = await behavior(request, context)
                await receive_watch.check_end(end, stranger)
                return reply

        return respond

    async def _has_key(self, context: Context) -> bool:
        """Whether a caller has shown a valid key, also where it need not."""
        if self._keyring is None:
            return False
        metadata: Any = context.invocation_metadata()
        await self._keyring.refresh()
        try:
            self._keyring.authenticate(metadata)
        except UnauthenticatedError:
            return False
        return True


def _number(metadata: Any, name: str) -> int:
    """The number that a caller says of itself; 0 if it does not say it, or what it says is no number."""
    for one, value in metadata:
        if one == name:
            return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else 0
    return 0


@contextmanager
def _charged(caller: Caller, shares: Shares) -> Iterator[None]:
    """Counts a call against the caller's share and limits up to the end of the block.

    Raises:
        OverloadedError: one more would be beyond them.
        UnauthenticatedError: the key was revoked.
    """
    with shares.take(caller.name):
        taken = caller.take()
        try:
            yield
        finally:
            caller.give_back(taken)


def _begin(method: str, context: Context) -> RequestRecord:
    key = new_key()
    record = RequestRecord(method, key, key, ANYBODY, context.peer())
    left: float | None = context.time_remaining()  # None without a deadline, whatever its types say
    if left is not None:
        record.ends_at = record.received + left
    record.rpc_context = context
    record.carries_requests = method == MULTIPLEX
    return record


def _trailing(record: RequestRecord, load: Callable[[], bytes] | None) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata that goes with every status: what was measured, and the load where it may be told."""
    timing = record.server_timing()
    timed: tuple[tuple[str, str | bytes], ...] = (("server-timing", timing),) if timing else ()
    return timed if load is None or record.is_stranger else (*timed, (_LOAD, load()))


async def _abort(
    error: Exception, record: RequestRecord, context: Context, load: Callable[[], bytes] | None
) -> NoReturn:
    """Ends an RPC with the status that an error stands for.

    Raises:
        grpc.aio.AbortError: always.
    """
    told = note_failure(error, record)
    status = to_status(told, record.request_id)
    trailing = [("grpc-status-details-bin", status.SerializeToString()), *_trailing(record, load)]
    if (after := pushback(told)) is not None:
        trailing.append(("grpc-retry-pushback-ms", after))
    try:
        async with asyncio.timeout(_TELL_SECONDS):
            await context.abort(told.code, status.message, tuple(trailing))
    except TimeoutError:
        raise _StatusNotReadError from None
    raise AssertionError("abort always raises")


def _status_code(context: Context) -> grpc.StatusCode:
    """The code of an aborted RPC, which grpc.aio keeps as a number or as the enum's member."""
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next(member for member in grpc.StatusCode if member.value[0] == code)


def _coroutine(handler: Handler) -> Behavior:
    """The behavior of a handler as a coroutine; one that yields its replies writes them instead."""
    behaviors: dict[tuple[bool, bool], Any] = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    behavior = behaviors[handler.request_streaming, handler.response_streaming]
    if not inspect.isasyncgenfunction(behavior):
        return behavior  # type: ignore[no-any-return]  # handlers carry no types once they are registered

    async def write_all(request: Any, context: Any) -> None:
        async for reply in behavior(request, context):
            await context.write(reply)

    return write_all


def _parser(handler: Handler) -> Callable[[bytes], Any]:
    return handler.request_deserializer or (lambda data: data)


async def _refuse(_: Any, __: Any) -> None:
    raise UnsupportedMethodError


_UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_refuse)
