"""The options of a connection, and the errors of failed calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import doherty
from doherty import (
    Client,
    DeadlineExceededError,
    DohertyError,
    OverloadedError,
    RetryPolicy,
    TLSConfig,
    UnavailableError,
)
from doherty.cli._exit import Failed, Unavailable
from doherty.cli._modal import SCHEME, boot

if TYPE_CHECKING:
    from doherty import AsyncClient

_Callback = Callable[..., Any]

_DEFAULT_TARGET: Final = "localhost:50051"
"""The default of the SDK, which the help shows."""

_MAX_KEY_CHARACTERS: Final = 4_096

_LATER: Final = (DeadlineExceededError, UnavailableError)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of the connection from the command line."""

    target: str
    """One server, or several separated by commas."""
    timeout: float
    """The timeout of a call in seconds."""
    api_key: str | None = field(repr=False)
    """None means the value of the environment variable."""
    tls: TLSConfig | bool | None
    insecure: bool

    @contextmanager
    def connect(self, *, retrying: bool = True) -> Iterator[Client]:
        """Returns a client whose errors end the command with one line.

        Args:
            retrying: Whether failed calls are retried and lost streams are resumed. For measurements, neither is done.
        """
        with _reporting_usage():
            client = Client(
                self.target,
                api_key=self.api_key,
                tls=self.tls,
                insecure=self.insecure,
                timeout=self.timeout,
                # A person who mistyped an address should know immediately.
                retry=RetryPolicy(wait_for_ready=False) if retrying else None,
                resume=retrying,
            )
        with reporting_failures(), client:
            yield client

    def connect_async(self, target: str | None = None) -> "AsyncClient":
        """Returns a client for asyncio without retries. Use it within `reporting_failures`.

        `target` replaces the option.
        """
        with _reporting_usage():
            return doherty.AsyncClient(  # imported here, because only the load generator needs it
                target or self.target,
                api_key=self.api_key,
                tls=self.tls,
                insecure=self.insecure,
                timeout=self.timeout,
                retry=None,
                resume=False,
            )


class ServerCommand(click.Command):
    """A command whose help shows the connection's options in a separate section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Connection": []}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                sections["Connection" if isinstance(parameter, _ConnectionOption) else "Options"].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class _ConnectionOption(click.Option):
    """An option of the connection to the server."""


def server_options(*, timeout: float) -> Callable[[_Callback], _Callback]:
    """Adds the options of a connection to a command, which gets them as `server`; `timeout` is a default."""

    def decorate(callback: _Callback) -> _Callback:
        @wraps(callback)
        def with_server(  # noqa: PLR0913 - the options
            *arguments: Any,
            target: str,
            timeout: float,
            api_key_file: Path | None,
            tls: bool | None,
            tls_ca: Path | None,
            tls_cert: Path | None,
            tls_key: Path | None,
            insecure: bool,
            **rest: Any,
        ) -> Any:
            key, encryption = _read_key(api_key_file), _tls(tls, tls_ca, tls_cert, tls_key)
            if target.startswith(SCHEME):
                target, encryption = boot(target), True if encryption is None else encryption
            return callback(*arguments, server=ServerOptions(target, timeout, key, encryption, insecure), **rest)

        decorated: _Callback = with_server
        for option in reversed(_options(timeout)):
            decorated = option(decorated)
        return decorated

    return decorate


def _options(timeout: float) -> tuple[Callable[[_Callback], _Callback], ...]:
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    option = partial(click.option, cls=_ConnectionOption)
    return (
        option(
            "--target",
            envvar="DOHERTY_TARGET",
            default=_DEFAULT_TARGET,
            show_default=True,
            show_envvar=True,
            metavar="HOST:PORT[,...]",
            help="One server, or several separated by commas. modal:NAME is the server of an app on Modal.",
        ),
        option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=timeout,
            show_default=True,
            metavar="SECONDS",
            help="The timeout of each call.",
        ),
        option(
            "--api-key-file",
            type=file,
            help="A file that contains only the API key. The default is the variable DOHERTY_API_KEY. There is no flag "
            "for the key itself, because every user of a machine can read the flags of its programs.",
        ),
        option("--tls/--no-tls", default=None, help="Encrypt the connection. The flags below imply it."),
        option(
            "--tls-ca",
            type=file,
            envvar="DOHERTY_TLS_CA",
            show_envvar=True,
            help="The certificates to trust. The default is gRPC's list.",
        ),
        option("--tls-cert", type=file, help="The client's certificate, for servers that require one."),
        option("--tls-key", type=file, help="The private key of --tls-cert."),
        option("--insecure", is_flag=True, help="Allow sending the API key to another machine without encryption."),
    )


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:  # it may be a pipe
            key = file.read(_MAX_KEY_CHARACTERS + 1).strip()
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"The API key cannot be read: {error}.") from error
    if not key or len(key) > _MAX_KEY_CHARACTERS:
        raise click.UsageError(f"There is no API key in {path}.")
    return key


def _tls(tls: bool | None, ca: Path | None, cert: Path | None, key: Path | None) -> TLSConfig | bool | None:  # noqa: FBT001 - the flags
    if tls is False:
        if cert or key:
            raise click.UsageError("--no-tls cannot be combined with --tls-cert and --tls-key.")
        return False
    if (cert is None) is not (key is None):
        raise click.UsageError("--tls-cert and --tls-key go together.")
    if ca or cert:
        return TLSConfig(ca=ca, cert=cert, key=key)
    return tls


@contextmanager
def reporting_failures() -> Iterator[None]:
    """Turns an exception of the SDK into one line and an exit code."""
    try:
        yield
    except DohertyError as error:
        raise failure(error) from error


@contextmanager
def _reporting_usage() -> Iterator[None]:
    """Turns invalid options of a connection into a usage error."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def failure(error: DohertyError) -> Failed | Unavailable:
    """Returns the message and the exit code for an exception of the SDK."""
    full = isinstance(error, OverloadedError) and error.retry_after is not None  # else the request is too large
    return Unavailable(str(error)) if full or isinstance(error, _LATER) else Failed(str(error))
