"""The command `doherty keys`, which changes the file of API keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
from pydantic import ValidationError

from doherty_service.metrics import KeyUse, UseUnknownError, read_key_use
from doherty_service.security import UNLIMITED, ApiKey, KeysFileError, changed_key, changing_keys, new_key, read_keys

_Command = TypeVar("_Command", bound=Callable[..., None])

_DEFAULT = "default"
"""What takes a limit back, so that the server's default holds."""
_LIMIT = f"[N|{UNLIMITED}|{_DEFAULT}]"


@click.group(name="keys")
def keys() -> None:
    """Add, change, list and revoke the API keys of a server.

    A server that runs with the same file (its setting keys_file) follows every change at once. The file holds the
    SHA-256 of the keys, never the keys.
    """


def _limit(text: str) -> int | str | None:
    """A number of at least 1, "unlimited", or None for "default"."""
    if text == _DEFAULT:
        return None
    if text == UNLIMITED:
        return text
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is no number, and not {UNLIMITED} or {_DEFAULT}.")
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


def _takes_settings(command: _Command) -> _Command:
    """The options that say what a key may do; those that are not given are not passed on."""
    options = [
        click.option(
            "--adapter",
            "adapters",
            multiple=True,
            help="An adapter that the key may name; may be given several times. Requests without an adapter are open "
            "to every key.",
        ),
        click.option("--all-adapters", is_flag=True, help="Let the key name every adapter, as a new one may."),
        click.option(
            "--max-concurrent",
            type=_limit,
            metavar=_LIMIT,
            help="How many requests may run or wait at a time. The default of this and the next two is the server's.",
        ),
        click.option(
            "--per-minute",
            type=_limit,
            metavar=_LIMIT,
            help="How many requests a minute, on average; as many may come at once after a minute without any.",
        ),
        click.option(
            "--tokens-per-minute",
            type=_limit,
            metavar=_LIMIT,
            help="How many tokens a minute, prompts and answers together, on average; as many may come at once after "
            "a minute without any.",
        ),
        click.option(
            "--weight",
            type=click.FloatRange(min=0, min_open=True, max=1000),
            help="Its share of the engine while other keys wait, relative to theirs; 1 for a new key.",
        ),
        click.option(
            "--highest-priority",
            type=click.Choice(["interactive", "batch"]),
            help="The highest priority that its requests may claim; interactive for a new key.",
        ),
        click.option(
            "--operator/--no-operator",
            default=None,
            help="Let its holder see what GetLatency tells of all keys, by name; a new key's may not.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _settings(context: click.Context, adapters: tuple[str, ...], *, all_adapters: bool) -> dict[str, object]:
    """The fields of ApiKey that the command line sets; "default" is one of them, and None."""
    if adapters and all_adapters:
        raise click.UsageError("--adapter and --all-adapters exclude each other.")
    names = [name for name in ApiKey.model_fields if name in context.params and name != "adapters"]
    given = {name for name in names if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    settings = {name: context.params[name] for name in names if name in given}
    if adapters or all_adapters:
        settings["adapters"] = adapters or None
    return settings


@keys.command()
@click.argument("name")
@_takes_settings
@_takes_file
@click.pass_context
def add(
    context: click.Context, /, path: Path, name: str, adapters: tuple[str, ...], *, all_adapters: bool, **_: object
) -> None:
    """Make a key for NAME, and print it.

    It is printed this once, and kept nowhere.
    """
    settings = _settings(context, adapters, all_adapters=all_adapters)
    with _failing():
        key, token = new_key(name, settings)
        with changing_keys(path) as kept:
            if any(other.name == name for other in kept):
                raise click.UsageError(f"There is a key of the name {name!r} already.")
            kept.append(key)
    click.echo(token)
    click.echo("This is the only time that the key is shown.", err=True)


@keys.command(name="set")
@click.argument("name_or_id")
@_takes_settings
@_takes_file
@click.pass_context
def set_key(
    context: click.Context,
    /,
    path: Path,
    name_or_id: str,
    adapters: tuple[str, ...],
    *,
    all_adapters: bool,
    **_: object,
) -> None:
    """Change what a key may do, by its name or id.

    What is not named stays as it is. The change holds from the next call on, also for calls on a connection that is
    there.
    """
    settings = _settings(context, adapters, all_adapters=all_adapters)
    if not settings:
        raise click.UsageError("Nothing is to be changed; `doherty keys set --help` lists what can be.")
    with _changing(path) as kept:
        place = kept.index(_find(kept, name_or_id))
        kept[place] = changed_key(kept[place], settings)
        changed = kept[place]
    click.echo(_line(changed, len(changed.name)), err=True)


@keys.command(name="list")
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    envvar="DOHERTY_METRICS_LISTEN",
    help="Where the server serves its metrics: shows how much each key uses now. [DOHERTY_METRICS_LISTEN]",
)
@_takes_file
def list_keys(path: Path, metrics: str | None) -> None:
    """List the keys: id, name, date, what each may do, and with --metrics what it uses now."""
    with _failing():
        kept = read_keys(path)
        use = read_key_use(metrics) if metrics else {}
    width = max((len(key.name) for key in kept), default=0)
    for key in kept:
        click.echo(_line(key, width, use.get(key.name)))


@keys.command()
@click.argument("name_or_id")
@_takes_file
def revoke(path: Path, name_or_id: str) -> None:
    """Make a key invalid, by its name or id.

    Requests that run already end in their own time.
    """
    with _changing(path) as kept:
        found = _find(kept, name_or_id)
        kept.remove(found)
    click.echo(f"revoked {found.id}  {found.name}", err=True)


def _line(key: ApiKey, width: int, use: KeyUse | None = None) -> str:
    line = f"{key.id}  {key.name:<{width}}  {key.created:%Y-%m-%d}  {', '.join(_told(key)) or 'no limits'}"
    return line if use is None else f"{line}  [{', '.join(_used(use))}]"


def _told(key: ApiKey) -> Iterator[str]:
    """What a key may do, as far as it is not what every new key may."""
    if key.adapters is not None:
        yield f"adapters {' '.join(key.adapters) or 'none'}"
    if key.max_concurrent is not None:
        yield f"{key.max_concurrent} at a time"
    if key.per_minute is not None:
        yield f"{key.per_minute} a minute"
    if key.operator:
        yield "operator"
    if key.tokens_per_minute is not None:
        yield f"{key.tokens_per_minute} tokens a minute"
    if key.weight != ApiKey.model_fields["weight"].default:
        yield f"weight {key.weight:g}"
    if key.highest_priority != ApiKey.model_fields["highest_priority"].default:
        yield f"at most {key.highest_priority}"


def _used(use: KeyUse) -> Iterator[str]:
    yield f"{use.running} running"
    yield f"{use.queued} waiting"
    for limit, share in use.shares.items():
        yield f"{share:.0%} of {limit.replace('_', '-')}"


def _find(kept: list[ApiKey], name_or_id: str) -> ApiKey:
    # A name may look like the id of another key; ids come first.
    found = [key for key in kept if key.id == name_or_id] or [key for key in kept if key.name == name_or_id]
    if not found:
        raise click.UsageError(f"There is no key of the name or id {name_or_id!r}.")
    return found[0]


@contextmanager
def _changing(path: Path) -> Iterator[list[ApiKey]]:
    """The keys of a file that must be there already."""
    with _failing():
        read_keys(path)  # says so where there is none
        with changing_keys(path) as kept:
            yield kept


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise click.UsageError(_problem(error)) from error
    except (KeysFileError, UseUnknownError) as error:
        raise click.ClickException(str(error)) from error


def _problem(error: ValidationError) -> str:
    """What is wrong with a key, by the first thing that is."""
    first = error.errors()[0]
    field = str(first["loc"][0])
    if field == "name":
        return f"{first['input']!r} is not a name of up to 64 letters, digits and any of . _ @ - behind the first."
    return f"--{field.replace('_', '-')}: {first['msg']}."
