"""The interceptor that wraps the handler of every method."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import grpc
import grpc.aio

from doherty_service._call import Call
from doherty_service._errors import UnauthenticatedError, UnsupportedMethodError
from doherty_service.admission import Shares
from doherty_service.rpc._end_watch import EndWatch
from doherty_service.rpc._failures import note_leaving
from doherty_service.rpc._grpcio_call import GrpcioCall
from doherty_service.rpc._handlers import UNKNOWN, Handler, coroutine_of, parser_of
from doherty_service.rpc._other_services import OtherServices
from doherty_service.rpc._receiving import ReceiveWatch, RequestEnd
from doherty_service.rpc._reporter import Reporter
from doherty_service.rpc._status import StatusNotReadError, abort, status_code, trailing_metadata
from doherty_service.rpc._unauthenticated import UnauthenticatedCalls
from doherty_service.security import ANYBODY, Caller, Keyring
from doherty_service.telemetry import MULTIPLEX, RequestRecord, new_key

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

_MAX_DIGITS = 9
"""A number in metadata that has more digits counts as 0."""


class LatencyInterceptor(grpc.aio.ServerInterceptor):
    """Measures every RPC up to its terminal status.

    To keep the cost of an RPC low, a single coroutine does everything that the handler does not do: it creates the
    record, authenticates the caller, reads and parses the request, maps errors to a status, and reports the end.
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
        close: Callable[[str], None] = lambda _: None,
        refusals: Counter[str] | None = None,
        load: Callable[[], bytes | None] | None = None,
        own_services: Collection[str] = (),
    ) -> None:
        """Creates the interceptor. Services are named by their full names.

        Args:
            reporter: Is told when an RPC begins and when it ends.
            receive_watch: Receives the requests, and ends RPCs whose request does not arrive.
            keyring: The valid keys. All services except `open_services` require one. None: no service requires a key.
            open_services: Services for which no key is required.
            costly_services: Services outside the contract whose concurrent calls are limited, and their `Shares`, which
                divide the limit evenly among keys. Each call also counts against the limits of its key. The servicers
                of the contract check both themselves.
            accept: Called with the peer (gRPC's name of a connection) of each call that passed authentication.
            close: Called with the peer of a connection on which too many calls without a key were refused.
            refusals: Counts refused calls of callers without a key.
            load: Returns the load report that is sent with the status of each RPC of the contract, unless the caller
                lacks a required key.
            own_services: Services whose handlers are called like those of the contract: they get the record in place of
                gRPC's context, and return bytes.
        """
        self.end_watch = EndWatch(reporter)
        self._reporter = reporter
        self._receive_watch = receive_watch
        self._keyring = keyring
        self._accept = accept
        self._open_services = frozenset(open_services)
        self._other_services = OtherServices(
            receive_watch,
            UnauthenticatedCalls(Counter() if refusals is None else refusals, close),
            keyring=keyring,
            accept=accept,
            costly=costly_services,
        )
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
            return self._wrap(UNKNOWN, name)
        self._handlers[name] = self._wrap(handler, name)
        return self._handlers[name]

    def _wrap(self, handler: Handler, name: str) -> Handler:
        """Wraps a handler for grpc.aio. The wrapper gets the request unread and unparsed."""
        method = self.method(handler, name)
        serve = method.serve

        async def run(messages: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            try:
                return await serve(GrpcioCall(context))
            except grpc.aio.AbortError as error:
                # grpc.aio keeps this error with the RPC, and its frames refer to the RPC and the request: a cycle that
                # would keep both until a full garbage collection, which is rare.
                error.__traceback__ = None
                del messages, context
                raise

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(run, None, method.serialize)

    def method(self, handler: Handler | None, name: str) -> "Method":
        """Returns what serves the calls of a method, on any transport; None stands for an unknown method."""
        handler = handler or UNKNOWN
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
        respond = (
            self._responding(handler, name)
            if is_own
            else self._other_services.responding(handler, name, is_open=keyring is None)
        )
        load = self._load if is_own else None
        begin, accept = self._reporter.begin, self._accept

        async def serve(call: Call, record: RequestRecord) -> Any:
            metadata: Any = call.invocation_metadata()
            begin(record, metadata)
            record.is_unauthenticated = keyring is not None
            try:
                if keyring is not None:
                    await keyring.refresh()
                    record.caller = _authenticate(keyring, metadata, name)
                    record.is_unauthenticated = False
                if accepts:
                    accept(record.peer)
                    call.accept()
                _note_attempts(record, metadata)
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
        behavior, parse = coroutine_of(handler), parser_of(handler)
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
                if not end.is_only:
                    await receive_watch.check_end(end)
                return reply
            finally:
                end.stop()

        return respond


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


def _note_attempts(record: RequestRecord, metadata: Any) -> None:
    """Records what the metadata tells about earlier attempts of the caller."""
    for name, value in metadata:
        if name == _ATTEMPTS:
            record.attempt = 1 + _number(value)
        elif name == _TRYING_SINCE:
            record.tried_for = _number(value) / 1000


def _number(text: str) -> int:
    """Parses a number in metadata; returns 0 if the text is not a number, or is too long."""
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0


def _begin(method: str, call: Call) -> RequestRecord:
    key = new_key()
    record = RequestRecord(method, key, key, ANYBODY, call.peer(), carries_requests=method == MULTIPLEX)
    remaining = call.time_remaining()
    if remaining is not None:
        record.ends_at = record.received + remaining
    record.call = call
    return record
