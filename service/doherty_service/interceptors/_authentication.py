"""Lets in only callers with a key, before anything of what they send is read."""

from collections.abc import Collection
from typing import Any

from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Method
from doherty_service.latency import current_call
from doherty_service.security import Keyring, set_current_caller


class AuthenticationInterceptor(Around):
    """Asks for a key on every method, but for those of the services that are open."""

    def __init__(self, keyring: Keyring, open_services: Collection[str]) -> None:
        """Everything but `open_services`, the full names of services, needs a key of `keyring`."""
        self._keyring = keyring
        self._open_services = frozenset(open_services)

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """Runs the behavior for callers who are known."""
        if method.name.removeprefix("/").partition("/")[0] in self._open_services:
            return behavior

        async def known(request: Any, context: CallContext) -> Any:
            caller = self._keyring.authenticate(context.invocation_metadata() or ())
            set_current_caller(caller)
            current_call().key_name = caller.name
            return await behavior(request, context)

        return known
