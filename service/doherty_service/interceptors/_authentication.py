"""Lets in only callers with a key, before anything of what they send is read."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

import grpc

from doherty_service._errors import UnauthenticatedError
from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Handler, Method
from doherty_service.latency import current_call
from doherty_service.security import Keyring, current_caller, set_current_caller


class AuthenticationInterceptor(Around):
    """Asks for a key on every method, but for those of the services that are open.

    A caller without one gets a handler that refuses: being a streaming one, whatever the method is, it does not wait
    for the request's message.
    """

    def __init__(self, keyring: Keyring, open_services: Collection[str]) -> None:
        """Everything but `open_services`, the full names of services, needs a key of `keyring`."""
        self._keyring = keyring
        self._open_services = frozenset(open_services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Finds out who calls."""
        service = handler_call_details.method.removeprefix("/").partition("/")[0]
        if service in self._open_services:
            return await continuation(handler_call_details)
        try:
            caller = self._keyring.authenticate(handler_call_details.invocation_metadata or ())
        except UnauthenticatedError as error:
            return _refusing(error)
        # The handler runs in this context, too.
        set_current_caller(caller)
        return await super().intercept_service(continuation, handler_call_details)

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:  # noqa: ARG002 - the same for every method
        """Runs the behavior with the name of the key on its call."""

        async def known(request: Any, context: CallContext) -> Any:
            current_call().key_name = current_caller().name
            return await behavior(request, context)

        return known


def _refusing(error: UnauthenticatedError) -> Handler:
    async def refuse(requests: Any, context: CallContext) -> None:  # noqa: ARG001 - gRPC's signature
        raise error

    return grpc.stream_stream_rpc_method_handler(refuse)
