"""The command `doherty keys`, which manages the file of API keys."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from pydantic import ValidationError

from doherty_service.command._key_display import key_as_json, key_line
from doherty_service.metrics import KeyUse, UseUnknownError, read_key_use
from doherty_service.security import UNLIMITED, ApiKey, KeysFileError, changed_key, changing_keys, new_key, read_keys

_Command = TypeVar("_Command", bound=Callable[..., None])

_DEFAULT = "default"
"""Removes the limit of a key, so that the server's default applies."""
_LIMIT = f"[N|{UNLIMITED}|{_DEFAULT}]"


_EXAMPLES = """\
\b
Examples:
  doherty keys add alice --per-minute 600 --keys-file keys.json
  doherty keys list --keys-file keys.json
  doherty serve --keys-file keys.json
"""
_EXAMPLES_OF_ADD = """\
\b
Examples:
  doherty keys add batch --highest-priority batch --max-concurrent 64 --keys-file keys.json
  DOHERTY_KEYS_FILE=keys.json doherty keys add ops --operator --json
"""
_EXAMPLES_OF_SET = """\
\b
Examples:
  doherty keys set alice --tokens-per-minute 200000 --weight 2 --keys-file keys.json
  doherty keys set alice --per-minute default --keys-file keys.json
"""
_EXAMPLES_OF_LIST = """\
\b
Examples:
  doherty keys list --keys-file keys.json
  doherty keys list --metrics localhost:9464 --json --keys-file keys.json
"""
_EXAMPLES_OF_REVOKE = """\
\b
Examples:
  doherty keys revoke alice --keys-file keys.json
"""


@click.group(name="keys", epilog=_EXAMPLES)
def keys() -> None:
    """Add, change, list and revoke the API keys of a server.

    A running server with the same file (setting keys_file) applies every change immediately. The file contains SHA-256
    digests of the keys, not the keys.
    """


def _limit(text: str) -> int | str | None:
    """Parses a number, "unlimited" or "default", which becomes None."""
    if text == _DEFAULT:
        return None
    if text == UNLIMITED:
        return text
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not a number, {UNLIMITED} or {_DEFAULT}.")
    return int(text)


def _takes_file(command: _Command) -> _Command:
    return click.option(
        "--keys-file",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="DOHERTY_KEYS_FILE",
        required=True,
        help="The file of keys. [DOHERTY_KEYS_FILE]",
    )(command)


def _takes_json(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _takes_settings(command: _Command) -> _Command:
    """Adds the options for the permissions of a key."""
    options = [
        click.option(
            "--adapter",
            "adapters",
            multiple=True,
            help="An adapter that the key may use; can be repeated. Every key may use the model without an adapter.",
        ),
        click.option("--all-adapters", is_flag=True, help="Allow all adapters; the default for new keys."),
        click.option(
            "--max-concurrent",
            type=_limit,
            metavar=_LIMIT,
            help="Maximum number of requests that run or wait at the same time. For this and the next two options, the "
            "default is set by the server.",
        ),
        click.option(
            "--per-minute",
            type=_limit,
            metavar=_LIMIT,
            help="Maximum number of requests per minute, on average. After a minute without requests, all of them may "
            "come at once.",
        ),
        click.option(
            "--tokens-per-minute",
            type=_limit,
            metavar=_LIMIT,
            help="Maximum number of tokens per minute, prompts and answers together, on average. After a minute "
            "without use, all of them may be used at once.",
        ),
        click.option(
            "--weight",
            type=click.FloatRange(min=0, min_open=True, max=1000),
            help="The key's share of the engine's time, relative to the other keys that wait; 1 for new keys.",
        ),
        click.option(
            "--highest-priority",
            type=click.Choice(["interactive", "batch"]),
            help="The highest priority that requests of the key can have; interactive for new keys.",
        ),
        click.option(
            "--operator/--no-operator",
            default=None,
            help="Show the holder the statistics of all keys by name in GetLatency; off for new keys.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _settings(context: click.Context, adapters: tuple[str, ...], *, all_adapters: bool) -> dict[str, object]:
    """Returns the fields of ApiKey that the command line sets. The limit "default" is set, to None."""
    if adapters and all_adapters:
        raise click.UsageError("--adapter and --all-adapters cannot be combined.")
    names = [name for name in ApiKey.model_fields if name in context.params and name != "adapters"]
    given = {name for name in names if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    settings = {name: context.params[name] for name in names if name in given}
    if adapters or all_adapters:
        settings["adapters"] = adapters or None
    return settings


@keys.command(epilog=_EXAMPLES_OF_ADD)
@click.argument("name")
@_takes_settings
@_takes_json
@_takes_file
@click.pass_context
def add(  # noqa: PLR0913 - the options
    context: click.Context,
    /,
    path: Path,
    name: str,
    adapters: tuple[str, ...],
    *,
    all_adapters: bool,
    as_json: bool,
    **_: object,
) -> None:
    """Create a key for NAME and print it.

    The key is not stored anywhere, and cannot be printed again.
    """
    settings = _settings(context, adapters, all_adapters=all_adapters)
    with _reporting_errors():
        key, token = new_key(name, settings)
        with changing_keys(path) as stored_keys:
            if any(other.name == name for other in stored_keys):
                raise click.UsageError(f"A key with the name {name!r} already exists.")
            stored_keys.append(key)
    click.echo(json.dumps({"key": token, **key_as_json(key)}, indent=2) if as_json else token)
    click.echo("This is the only time that the key is shown.", err=True)


@keys.command(name="set", epilog=_EXAMPLES_OF_SET)
@click.argument("name_or_id")
@_takes_settings
@_takes_json
@_takes_file
@click.pass_context
def set_key(  # noqa: PLR0913 - the options
    context: click.Context,
    /,
    path: Path,
    name_or_id: str,
    adapters: tuple[str, ...],
    *,
    all_adapters: bool,
    as_json: bool,
    **_: object,
) -> None:
    """Change the permissions of a key, which NAME_OR_ID selects.

    Permissions that are not given stay unchanged. A change applies from the next call on, also on existing
    connections.
    """
    settings = _settings(context, adapters, all_adapters=all_adapters)
    if not settings:
        raise click.UsageError("There is nothing to change; `doherty keys set --help` lists the options.")
    with _changing(path) as stored_keys:
        index = stored_keys.index(_find(stored_keys, name_or_id))
        stored_keys[index] = changed_key(stored_keys[index], settings)
        changed = stored_keys[index]
    if as_json:
        click.echo(json.dumps(key_as_json(changed), indent=2))
    else:
        click.echo(key_line(changed, len(changed.name)), err=True)


@keys.command(name="list", epilog=_EXAMPLES_OF_LIST)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    envvar="DOHERTY_METRICS_LISTEN",
    help="The server's metrics address; adds how much each key uses now. [DOHERTY_METRICS_LISTEN]",
)
@_takes_json
@_takes_file
def list_keys(path: Path, metrics: str | None, *, as_json: bool) -> None:
    """List the keys: id, name, date, permissions, and with --metrics what each uses now."""
    with _reporting_errors():
        stored_keys = read_keys(path)
        use = read_key_use(metrics) if metrics else {}
    if as_json:
        shown = [key_as_json(key, use.get(key.name, KeyUse()) if metrics else None) for key in stored_keys]
        click.echo(json.dumps(shown, indent=2))
        return
    width = max((len(key.name) for key in stored_keys), default=0)
    for key in stored_keys:
        click.echo(key_line(key, width, use.get(key.name)))


@keys.command(epilog=_EXAMPLES_OF_REVOKE)
@click.argument("name_or_id")
@_takes_json
@_takes_file
def revoke(path: Path, name_or_id: str, *, as_json: bool) -> None:
    """Revoke a key, which NAME_OR_ID selects.

    Requests that are running may finish.
    """
    with _changing(path) as stored_keys:
        key = _find(stored_keys, name_or_id)
        stored_keys.remove(key)
    if as_json:
        click.echo(json.dumps(key_as_json(key), indent=2))
    else:
        click.echo(f"revoked {key.id}  {key.name}", err=True)


def _find(stored_keys: list[ApiKey], name_or_id: str) -> ApiKey:
    # Ids take precedence, because a name may look like the id of another key.
    by_id = [key for key in stored_keys if key.id == name_or_id]
    matches = by_id or [key for key in stored_keys if key.name == name_or_id]
    if not matches:
        raise click.UsageError(f"There is no key with the name or id {name_or_id!r}.")
    return matches[0]


@contextmanager
def _changing(path: Path) -> Iterator[list[ApiKey]]:
    """Yields the keys of an existing file, and writes them at the end of the block."""
    with _reporting_errors():
        read_keys(path)  # raises KeysFileError if the file does not exist
        with changing_keys(path) as stored_keys:
            yield stored_keys


@contextmanager
def _reporting_errors() -> Iterator[None]:
    """Converts our errors to click's."""
    try:
        yield
    except ValidationError as error:
        raise click.UsageError(_problem(error)) from error
    except (KeysFileError, UseUnknownError) as error:
        raise click.ClickException(str(error)) from error


def _problem(error: ValidationError) -> str:
    """Describes the first problem of a key."""
    first = error.errors()[0]
    field = str(first["loc"][0])
    if field == "name":
        return (
            f"{first['input']!r} is not a valid name. A name has up to 64 characters (letters, digits and . _ @ -) and "
            "begins with a letter or digit."
        )
    return f"--{field.replace('_', '-')}: {first['msg']}."
