"""Makes requests out of bytes, and INVALID_ARGUMENT out of those that do not parse."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from doherty_service._errors import InvalidRequestError, Violation
from doherty_service.interceptors._handlers import Around, Behavior, Method, ServicerContext


class ParsingInterceptor(Around):
    """The innermost interceptor: whoever is refused by another one has not made the server parse anything.

    Where core parses, a message that does not parse ends as UNKNOWN with the text of the exception.
    """

    parses = True

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """Runs the behavior with parsed requests."""
        parse_what_comes = _parse_each if method.streams_requests else _parse

        async def parsed(request: Any, context: ServicerContext) -> Any:
            return await behavior(parse_what_comes(method.parse, request), context)

        return parsed


def _parse(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        violation = Violation("", "the message is not one that the contract describes")
        raise InvalidRequestError([violation], reason="MALFORMED_MESSAGE") from None


async def _parse_each(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in requests:
        yield _parse(parse, data)
