"""How a command reaches the server, and what it says when the server fails it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from doherty._core._channel import DEFAULT_TARGET
from doherty._core._errors import DeadlineExceededError, DohertyError, OverloadedError, UnavailableError
from doherty._sync._client import Client
from doherty.cli._exit import Failed, Unavailable

_Callback = TypeVar("_Callback", bound=Callable[..., Any])

_LATER: Final = (DeadlineExceededError, UnavailableError)


def server_options(*, timeout: float) -> Callable[[_Callback], _Callback]:
    """Adds --target, and --timeout with this default."""

    def decorate(callback: _Callback) -> _Callback:
        seconds = click.FloatRange(min=0, min_open=True)
        for option in (
            click.option(
                "--timeout",
                type=seconds,
                default=timeout,
                show_default=True,
                metavar="SECONDS",
                help="How long a call may take.",
            ),
            click.option(
                "--target",
                envvar="DOHERTY_TARGET",
                default=DEFAULT_TARGET,
                show_default=True,
                show_envvar=True,
                metavar="HOST:PORT",
                help="The server.",
            ),
        ):
            callback = option(callback)
        return callback

    return decorate


@contextmanager
def connect(target: str, timeout: float) -> Iterator[Client]:
    """A client, whose errors end the command with one line."""
    try:
        client = Client(target, timeout=timeout)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with failures_told(), client:
        yield client


@contextmanager
def failures_told() -> Iterator[None]:
    """Ends the command with one line for whatever the SDK raises."""
    try:
        yield
    except DohertyError as error:
        raise failure(error) from error


def failure(error: DohertyError) -> Failed | Unavailable:
    """What the command says of an error, and its exit code."""
    full = isinstance(error, OverloadedError) and error.retry_after is not None  # else the request is too large
    return Unavailable(str(error)) if full or isinstance(error, _LATER) else Failed(str(error))
