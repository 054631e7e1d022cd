"""The interceptor that wraps the handler of every method."""

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import grpc.aio

from doherty_service._call import Call
from doherty_service._errors import UnauthenticatedError, UnsupportedMethodError
from doherty_service.admission import Shares
from doherty_service.rpc._end_watch import EndWatch
from doherty_service.rpc._failures import note_leaving
from doherty_service.rpc._grpcio_call import GrpcioCall
from doherty_service.rpc._initial_metadata import send_initial_metadata
from doherty_service.rpc._receiving import ReceiveWatch, RequestEnd
from doherty_service.rpc._reporter import Reporter
from doherty_service.rpc._status import StatusNotReadError, abort, status_code, trailing_metadata
from doherty_service.rpc._strangers import Strangers
from doherty_service.security import ANYBODY, Caller, Keyring
from doherty_service.telemetry import MULTIPLEX, RequestRecord, new_key

if TYPE_CHECKING:  # generic for type checkers only
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler

Behavior = Callable[[Any, Any], Awaitable[Any]]
"""The coroutine of a handler. It takes the request, or an iterator of requests, and the RPC's record or context."""

Respond = Callable[[Call, RequestRecord], Awaitable[Any]]
"""Answers an RPC. Returns the reply; None if the replies are streamed."""


class Method(NamedTuple):
    """What serves the calls of a method."""

    serve: Callable[[Call], Awaitable[Any]]
    """Returns the reply; None if the replies are streamed."""
    serialize: Callable[[Any], bytes] | None
    """Makes bytes of a reply; None if it is bytes already."""


_NO_SERVICES: Mapping[str, Shares] = MappingProxyType({})

_OWN_SERVICES = "/doherty."
_ATTEMPTS = "doherty-attempts"
"""Metadata: how often the caller sent this request before. gRPC's core does not show us its own retry metadata."""
_TRYING_SINCE = "doherty-trying-since-ms"
"""Metadata: the milliseconds since the caller's first attempt. It is a duration because clocks differ."""

_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

_MOST_DIGITS = 9


class LatencyInterceptor(grpc.aio.ServerInterceptor):
    """Measures every RPC up to its terminal status.

    One coroutine does everything that an RPC needs besides its handler, so that it costs little: it creates the record,
    authenticates the caller, reads and parses the request, maps errors to a status, and reports the end.
    Each handler is wrapped once per method, not once per call.
    """

    def __init__(  # noqa: PLR0913 - the objects that an RPC needs besides its handler
        self,
        reporter: Reporter,
        receive_watch: ReceiveWatch,
        *,
        keyring: Keyring | None = None,
        open_services: Collection[str] = (),
        costly_services: Mapping[str, Shares] = _NO_SERVICES,
        accept: Callable[[str], None] = lambda _: None,
        refusals: Counter[str] | None = None,
        load: Callable[[], bytes | None] | None = None,
        own_services: Collection[str] = (),
    ) -> None:
        """Creates the interceptor. Services are named by their full names.

        Args:
            reporter: Gets the begin and the end of each RPC.
            receive_watch: Receives the requests.
            keyring: All services except `open_services` require a key of it. None: no service requires a key.
            open_services: Services for which no key is required.
            costly_services: Services whose calls are limited per key by the given shares, and count against the limits
                of the key. The servicers of the contract do this themselves.
            accept: Called with the peer (gRPC's name of a connection) of each call that passed authentication.
            refusals: Counts refused calls of callers without a key.
            load: Returns the load report that is sent with the status of each RPC of the contract, unless the caller
                lacks a required key.
            own_services: Services whose handlers get the record and return bytes, like those of the contract.
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
        """Returns the wrapped handler of a method. For unknown methods it authenticates, then refuses."""
        name = handler_call_details.method
        if name in self._handlers:
            return self._handlers[name]
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._wrap(_UNKNOWN, name)
        self._handlers[name] = self._wrap(handler, name)
        return self._handlers[name]

    def _wrap(self, handler: Handler, name: str) -> Handler:
        """Wraps a handler for grpc.aio. The wrapper gets the request unread and unparsed."""
        method = self.method(handler, name)
        serve = method.serve

        async def run(_: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            return await serve(GrpcioCall(context))

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(run, None, method.serialize)

    def method(self, handler: Handler | None, name: str) -> "Method":
        """Returns what serves the calls of a method, on any transport; None stands for an unknown method."""
        handler = handler or _UNKNOWN
        is_own = name.startswith(self._own)
        serve = self._serving(handler, name, is_own=is_own)
        end_watch = self.end_watch
        load = self._load if is_own else None

        async def run(call: Call) -> Any:
            record = _begin(name, call)
            code = grpc.StatusCode.UNKNOWN
            try:
                reply = await serve(call, record)
                code = grpc.StatusCode.OK
                call.set_trailing_metadata(trailing_metadata(record, load))
            except StatusNotReadError:
                code = status_code(call)
                raise asyncio.CancelledError from None  # gRPC logs every other exception as our fault
            except grpc.aio.AbortError:
                code = status_code(call)
                raise
            except (asyncio.CancelledError, GeneratorExit):
                code = note_leaving(record)
                raise
            except grpc.aio.InternalError:
                # The caller went away during a write; gRPC would log that as an error, with its stack.
                code = note_leaving(record)
                raise asyncio.CancelledError from None
            finally:
                end_watch.add(call, record, code.name)
            if reply is not None:
                call.follow_reply()
            return reply

        return Method(run, None if is_own else handler.response_serializer)

    def _serving(self, handler: Handler, name: str, *, is_own: bool) -> Respond:
        """Returns a coroutine that authenticates the caller, answers the RPC, and maps exceptions to a status."""
        keyring = None if name[1:].partition("/")[0] in self._open_services else self._keyring
        accepts = is_own or keyring is not None
        respond = self._responding(handler, name) if is_own else self._responding_elsewhere(handler, name)
        load = self._load if is_own else None
        begin, accept = self._reporter.begin, self._accept

        async def serve(call: Call, record: RequestRecord) -> Any:
            metadata: Any = call.invocation_metadata()
            begin(record, metadata)
            record.is_stranger = keyring is not None
            try:
                if keyring is not None:
                    await keyring.refresh()
                    record.caller = _authenticate(keyring, metadata, name)
                    record.is_stranger = False
                if accepts:
                    accept(record.peer)
                record.attempt = 1 + _number(metadata, _ATTEMPTS)
                record.tried_for = _number(metadata, _TRYING_SINCE) / 1000
                reply = await respond(call, record)
            except (grpc.aio.AbortError, grpc.aio.InternalError):
                # The handler has set its own status, as the health service does, or a write failed.
                raise
            except NotImplementedError as error:
                # The generated base class raises it for a method that the servicer does not define (health's List).
                is_undefined = call.code() is grpc.StatusCode.UNIMPLEMENTED
                await abort(UnsupportedMethodError() if is_undefined else error, record, call, load)
            except Exception as error:  # noqa: BLE001 - every exception becomes a status and is logged
                await abort(error, record, call, load)
            else:
                return reply

        return serve

    def _responding(self, handler: Handler, name: str) -> Respond:
        """Returns a coroutine that reads and answers an RPC of the contract. Its handler gets the record."""
        behavior, parse = _coroutine(handler), _parser(handler)
        receive_watch = self._receive_watch

        async def respond(call: Call, record: RequestRecord) -> Any:
            if handler.request_streaming:
                # MultiplexGenerate reads its messages itself, and checks their size before it parses them.
                return await behavior(None, record)
            request = await receive_watch.receive(call, name, parse)
            record.received = time.monotonic()  # when the whole request is there, not its first byte
            end = RequestEnd(call)
            try:
                coroutine = behavior(request, record)
                del request  # it may be megabytes
                reply = await coroutine
                await receive_watch.check_end(end)
                return reply
            finally:
                end.stop()

        return respond

    def _responding_elsewhere(self, handler: Handler, name: str) -> Respond:
        """Returns a coroutine that reads and answers an RPC of another service, such as health. It may need no key."""
        behavior, parse = _coroutine(handler), _parser(handler)
        receive_watch = self._receive_watch
        shares = self._costly_services.get(name[1:].partition("/")[0])

        async def respond(call: Call, record: RequestRecord) -> Any:
            with ExitStack() as stack:
                stranger = None
                if not await self._has_key(call):
                    stranger = stack.enter_context(self._strangers.track_rpc(record.peer))
                if handler.request_streaming:
                    return await behavior(receive_watch.receive_each(call, name, parse, stranger), call)
                request = await receive_watch.receive(call, name, parse, stranger)
                record.received = time.monotonic()
                end = RequestEnd(call)
                stack.callback(end.stop)
                if shares is not None:
                    stack.enter_context(_charged(record.caller, shares))
                reply = await behavior(request, call)
                await receive_watch.check_end(end, stranger)
                return reply

        return respond

    async def _has_key(self, call: Call) -> bool:
        """Whether the caller sent a valid key, even if the service does not require one."""
        if self._keyring is None:
            return False
        metadata: Any = call.invocation_metadata()
        await self._keyring.refresh()
        try:
            self._keyring.authenticate(metadata)
        except UnauthenticatedError:
            return False
        return True


def _authenticate(keyring: Keyring, metadata: Any, method: str) -> Caller:
    """Returns the caller that the metadata identifies.

    gRPC's clients watch the health of the servers behind a name by themselves, and without a key. On UNIMPLEMENTED they
    take a server for healthy (gRPC's A17); after any other error they would never send it a call.

    Raises:
        UnauthenticatedError: There is no valid key.
        UnsupportedMethodError: There is no key, and the method watches the health.
    """
    try:
        return keyring.authenticate(metadata)
    except UnauthenticatedError as error:
        if method == _HEALTH_WATCH and error.reason == "MISSING_KEY":
            raise UnsupportedMethodError from error
        raise


def _number(metadata: Any, name: str) -> int:
    """Returns the number in a metadata entry; 0 if there is none, or if it is not a number."""
    for key, value in metadata:
        if key == name:
            return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else 0
    return 0


@contextmanager
def _charged(caller: Caller, shares: Shares) -> Iterator[None]:
    """Counts a call against the caller's share and limits until the end of the block.

    Raises:
        OverloadedError: This call would exceed them.
        UnauthenticatedError: The key was revoked.
    """
    with shares.take(caller.name):
        taken = caller.take()
        try:
            yield
        finally:
            caller.give_back(taken)


def _begin(method: str, call: Call) -> RequestRecord:
    key = new_key()
    record = RequestRecord(method, key, key, ANYBODY, call.peer())
    remaining = call.time_remaining()
    if remaining is not None:
        record.ends_at = record.received + remaining
    record.call = call
    record.carries_requests = method == MULTIPLEX
    return record


def _coroutine(handler: Handler) -> Behavior:
    """Returns the behavior of a handler as a coroutine. An async generator is wrapped: its replies are written."""
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
        has_begun = False
        async for reply in behavior(request, context):
            if not has_begun:
                await send_initial_metadata(context)
                has_begun = True
            await context.write(reply)

    return write_all


def _parser(handler: Handler) -> Callable[[bytes], Any]:
    return handler.request_deserializer or (lambda data: data)


async def _refuse(_: Any, __: Any) -> None:
    raise UnsupportedMethodError


_UNKNOWN: Handler = grpc.stream_stream_rpc_method_handler(_refuse)
