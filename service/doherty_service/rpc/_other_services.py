"""Calls of services that are not of our contract, such as health and reflection. Some of them require no key."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from doherty_service._call import Call
from doherty_service._errors import UnauthenticatedError
from doherty_service.admission import Shares
from doherty_service.rpc._handlers import Handler, coroutine_of, parser_of
from doherty_service.rpc._receiving import ReceiveWatch, RequestEnd
from doherty_service.rpc._unauthenticated import UnauthenticatedCalls
from doherty_service.security import Caller, Keyring
from doherty_service.telemetry import RequestRecord


class OtherServices:
    """Reads and answers calls whose handlers expect gRPC's context, and may be called without a key."""

    def __init__(
        self,
        receive_watch: ReceiveWatch,
        unauthenticated: UnauthenticatedCalls,
        *,
        keyring: Keyring | None,
        accept: Callable[[str], None],
        costly: Mapping[str, Shares],
    ) -> None:
        """The arguments are described at `LatencyInterceptor`."""
        self._receive_watch = receive_watch
        self._unauthenticated = unauthenticated
        self._keyring = keyring
        self._accept = accept
        self._costly = costly

    def responding(
        self, handler: Handler, name: str, *, is_open: bool
    ) -> Callable[[Call, RequestRecord], Awaitable[Any]]:
        """Returns a coroutine that reads a call and answers it.

        If `is_open`, no key is required, but the call may have one. Otherwise, the caller is already authenticated.
        """
        behavior, parse = coroutine_of(handler), parser_of(handler)
        receive_watch = self._receive_watch
        shares = self._costly.get(name[1:].partition("/")[0])

        async def respond(call: Call, record: RequestRecord) -> Any:
            with ExitStack() as stack:
                unauthenticated = None
                if is_open and await self._has_key(call):
                    self._accept(record.peer)
                    call.accept()
                elif is_open:
                    unauthenticated = stack.enter_context(self._unauthenticated.track_rpc(record.peer))
                if handler.request_streaming:
                    return await behavior(receive_watch.receive_each(call, name, parse, unauthenticated), call)
                request = await receive_watch.receive(call, name, parse, unauthenticated)
                record.received = time.monotonic()
                end = RequestEnd(call)
                stack.callback(end.stop)
                if shares is not None:
                    stack.enter_context(_charged(record.caller, shares))
                reply = await behavior(request, call)
                await receive_watch.check_end(end, unauthenticated)
                return reply

        return respond

    async def _has_key(self, call: Call) -> bool:
        """Whether the caller sent a valid key, even though the service requires none."""
        if self._keyring is None:
            return False
        metadata: Any = call.invocation_metadata()
        await self._keyring.refresh()
        try:
            self._keyring.authenticate(metadata)
        except UnauthenticatedError:
            return False
        return True


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
