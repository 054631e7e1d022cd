"""The outermost interceptor: gives every call its Call, on which all others leave their marks."""

import random
from typing import Any

from doherty_service.interceptors._handlers import Around, Behavior, CallContext, Method
from doherty_service.latency import MULTIPLEX, Call, set_current_call


class RequestIdInterceptor(Around):
    """Names every call, and takes its receive time: the handler runs once the whole request is there."""

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """Runs the behavior with a Call of its own."""

        async def named(request: Any, context: CallContext) -> Any:
            key = f"{random.getrandbits(128):032x}"
            set_current_call(
                Call(
                    method=method.name,
                    key=key,
                    request_id=key,
                    carries_requests=method.streams_requests and method.name == MULTIPLEX,
                )
            )
            return await behavior(request, context)

        return named
