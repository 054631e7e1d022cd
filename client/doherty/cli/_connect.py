"""How a command reaches the server, and what it says when the server fails it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from doherty._core._addresses import DEFAULT_TARGET
from doherty._core._errors import DeadlineExceededError, DohertyError, OverloadedError, UnavailableError
from doherty._sync._client import Client
from doherty.cli._exit import Failed, Unavailable

if TYPE_CHECKING:
    from doherty._aio._client import AsyncClient

_Callback = Callable[..., Any]

_LATER: Final = (DeadlineExceededError, UnavailableError)


@dataclass(frozen=True, slots=True)
class Server:
    """What the command line says of the server and the way to it."""

    target: str
    timeout: float
    """Seconds that a call may take."""

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """A client, whose errors end the command with one line."""
        with _usage_told():
            client = Client(self.target, timeout=self.timeout)
        with failures_told(), client:
            yield client

    def connect_async(self, target: str | None = None) -> "AsyncClient":
        """The same for asyncio, to use within `failures_told`; `target` replaces the server's own."""
        from doherty._aio._client import AsyncClient  # noqa: PLC0415 - only the load generator needs it

        with _usage_told():
            return AsyncClient(target or self.target, timeout=self.timeout)


def server_options(*, timeout: float) -> Callable[[_Callback], _Callback]:
    """Adds the options that every command has, the timeout with this default, and passes them on as `server`."""

    def decorate(callback: _Callback) -> _Callback:
        @wraps(callback)
        def with_server(*arguments: Any, target: str, timeout: float, **rest: Any) -> Any:
            return callback(*arguments, server=Server(target, timeout), **rest)

        decorated: _Callback = with_server
        for option in reversed(_options(timeout)):
            decorated = option(decorated)
        return decorated

    return decorate


def _options(timeout: float) -> tuple[Callable[[_Callback], _Callback], ...]:
    return (
        click.option(
            "--target",
            envvar="DOHERTY_TARGET",
            default=DEFAULT_TARGET,
            show_default=True,
            show_envvar=True,
            metavar="HOST:PORT",
            help="The server.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=timeout,
            show_default=True,
            metavar="SECONDS",
            help="How long a call may take.",
        ),
    )


@contextmanager
def failures_told() -> Iterator[None]:
    """Ends the command with one line for whatever the SDK raises."""
    try:
        yield
    except DohertyError as error:
        raise failure(error) from error


@contextmanager
def _usage_told() -> Iterator[None]:
    """Points to the help for what cannot be a server."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def failure(error: DohertyError) -> Failed | Unavailable:
    """What the command says of an error, and its exit code."""
    full = isinstance(error, OverloadedError) and error.retry_after is not None  # else the request is too large
    return Unavailable(str(error)) if full or isinstance(error, _LATER) else Failed(str(error))
