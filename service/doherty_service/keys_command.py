"""The command `doherty keys`, which changes the file of API keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from pydantic import ValidationError

from doherty_service.security import ApiKey, KeysFileError, changing_keys, new_key, read_keys

_Command = TypeVar("_Command", bound=Callable[..., None])


@click.group(name="keys")
def keys() -> None:
    """Add, list and revoke the API keys of a server.

    A server that runs with the same file (its setting keys_file) follows every change at once. The file holds the
    SHA-256 of the keys, never the keys.
    """


def _takes_file(command: _Command) -> _Command:
    return click.option(
        "--keys-file",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="DOHERTY_KEYS_FILE",
        required=True,
        help="The file of keys. [DOHERTY_KEYS_FILE]",
    )(command)


@keys.command()
@click.argument("name")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    help="An adapter that the key may name; may be given several times. Without it, all. Requests without an adapter "
    "are open to every key.",
)
@click.option("--max-concurrent", type=click.IntRange(min=1), help="How many requests may run or wait at a time.")
@click.option(
    "--per-minute",
    type=click.IntRange(min=1),
    help="How many requests a minute, on average; as many may come at once after a minute without any.",
)
@click.option("--operator", is_flag=True, help="Let its holder see what GetLatency tells of all keys, by name.")
@_takes_file
def add(  # noqa: PLR0913 - each is an option
    *,
    path: Path,
    name: str,
    adapters: tuple[str, ...],
    max_concurrent: int | None,
    per_minute: int | None,
    operator: bool,
) -> None:
    """Make a key for NAME, and print it.

    It is printed this once, and kept nowhere.
    """
    try:
        key, token = new_key(
            name,
            adapters=adapters or None,
            max_concurrent=max_concurrent,
            per_minute=per_minute,
            operator=operator,
        )
    except ValidationError as error:
        raise click.UsageError(
            f"{name!r} is not a name of up to 64 letters, digits and any of . _ @ - behind the first."
        ) from error
    with _failing(), changing_keys(path) as kept:
        if any(other.name == name for other in kept):
            raise click.UsageError(f"There is a key of the name {name!r} already.")
        kept.append(key)
    click.echo(token)
    click.echo("This is the only time that the key is shown.", err=True)


@keys.command(name="list")
@_takes_file
def list_keys(path: Path) -> None:
    """List the keys: id, name, date and limits."""
    with _failing():
        kept = read_keys(path)
    width = max((len(key.name) for key in kept), default=0)
    for key in kept:
        click.echo(f"{key.id}  {key.name:<{width}}  {key.created:%Y-%m-%d}  {', '.join(_limits(key)) or 'no limits'}")


@keys.command()
@click.argument("name_or_id")
@_takes_file
def revoke(path: Path, name_or_id: str) -> None:
    """Make a key invalid, by its name or id.

    Requests that run already end in their own time.
    """
    with _failing():
        read_keys(path)  # says so where there is none
        with changing_keys(path) as kept:
            # A name may look like the id of another key; ids come first.
            found = [key for key in kept if key.id == name_or_id] or [key for key in kept if key.name == name_or_id]
            if not found:
                raise click.UsageError(f"There is no key of the name or id {name_or_id!r}.")
            kept.remove(found[0])
    click.echo(f"revoked {found[0].id}  {found[0].name}", err=True)


def _limits(key: ApiKey) -> Iterator[str]:
    if key.adapters is not None:
        yield f"adapters {' '.join(key.adapters) or 'none'}"
    if key.max_concurrent is not None:
        yield f"{key.max_concurrent} at a time"
    if key.per_minute is not None:
        yield f"{key.per_minute} a minute"
    if key.operator:
        yield "operator"


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except KeysFileError as error:
        raise click.ClickException(str(error)) from error
