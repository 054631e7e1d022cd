"""The command `doherty serve`. Its flags are the fields of Settings."""

import difflib
import os
import sys
import typing
from typing import TYPE_CHECKING, NoReturn

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from doherty_engine import EngineSetupError, engine_names, engine_options
from doherty_service.lifecycle import run
from doherty_service.process import UnfitFileError, prepare_process
from doherty_service.settings import CONFIG_VARIABLE, PREFIX, Settings, as_toml, sources, variable_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_USAGE = 2
"""The exit code of a server that could not start."""


def _option(name: str, field: FieldInfo) -> click.Option:
    """Creates the flag of one setting."""
    flag = "--" + name.replace("_", "-")
    value = field.default
    is_shown = isinstance(value, int | float | str) and not isinstance(value, bool) and value != ""
    default = f"; default {value}" if is_shown else ""
    text = f"{field.description} [{variable_of(name)}{default}]"
    annotation = field.annotation
    if annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text)
    if name == "engine_option":
        return click.Option([flag, "-o"], multiple=True, metavar="KEY=VALUE", help=text)
    is_choice = typing.get_origin(annotation) is typing.Literal
    choices = engine_names() if name == "engine" else typing.get_args(annotation) if is_choice else None
    option_type = click.Choice(choices) if choices else None  # pydantic parses the others
    return click.Option([flag], type=option_type, default=None, help=text)


def _serve(config: str | None, *, print_config: bool, **flags: object) -> None:
    prepare_process()
    if config is not None:
        os.environ[CONFIG_VARIABLE] = config
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    settings = _settings(given)
    if print_config:
        click.echo(as_toml(settings, sources(given)), nl=False)
        return
    try:
        run(settings)
    except EngineSetupError as error:
        _stop(str(error))


def _settings(given: dict[str, object]) -> Settings:
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        _stop(f"The settings are invalid: {'; '.join(map(_problem, error.errors()))}.")
    except (OSError, ValueError, UnfitFileError) as error:
        _stop(f"The settings file cannot be read: {error}.")


def _problem(error: "ErrorDetails") -> str:
    """Describes what is wrong with one setting, without its value."""
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    is_variable = name.upper().startswith(PREFIX)
    names = [variable_of(setting) if is_variable else setting for setting in Settings.model_fields]
    matches = difflib.get_close_matches(name, names, n=1)
    return f"{name}: there is no such setting" + (f" (did you mean {matches[0]}?)" if matches else "")


def _stop(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(_USAGE)


class _Serve(click.Command):
    """Appends the options of all engines to the help text. The engines are imported only for this."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        for name in engine_names():
            with formatter.section(f"Options of the engine {name}, as -o KEY=VALUE"):
                formatter.write_dl(list(engine_options(name).items()))


serve = _Serve(
    "serve",
    callback=_serve,
    params=[
        click.Option(["--config"], type=click.Path(exists=True, dir_okay=False), help="A TOML file of settings."),
        click.Option(["--print-config"], is_flag=True, help="Print the effective settings as TOML and exit."),
        *(_option(name, field) for name, field in Settings.model_fields.items()),
    ],
    help="Serve a model over gRPC, until SIGTERM or SIGINT.",
)
"""The command that the entry point `doherty.commands` refers to."""
