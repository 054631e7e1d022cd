"""The command `doherty serve`, whose flags are the fields of Settings."""

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
    """The flag of one setting."""
    flag = "--" + name.replace("_", "-")
    known = isinstance(field.default, int | float | str) and not isinstance(field.default, bool) and field.default != ""
    default = f"; default {field.default}" if known else ""
    text = f"{field.description} [{variable_of(name)}{default}]"
    annotation = field.annotation
    if annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=text)
    if name == "engine_option":
        return click.Option([flag, "-o"], multiple=True, metavar="KEY=VALUE", help=text)
    is_choice = typing.get_origin(annotation) is typing.Literal
    choices = engine_names() if name == "engine" else typing.get_args(annotation) if is_choice else None
    kind = click.Choice(choices) if choices else None  # pydantic reads the others
    return click.Option([flag], type=kind, default=None, help=text)


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
        _stop(f"The settings are wrong: {'; '.join(map(_problem, error.errors()))}.")
    except (OSError, ValueError, UnfitFileError) as error:
        _stop(f"The file of settings cannot be read: {error}.")


def _problem(error: "ErrorDetails") -> str:
    """What is wrong with one setting; its value is not repeated."""
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg'].removeprefix('Value error, ')}"
    names = [variable_of(one) if name.upper().startswith(PREFIX) else one for one in Settings.model_fields]
    near = difflib.get_close_matches(name, names, n=1)
    return f"{name}: there is no such setting" + (f" (did you mean {near[0]}?)" if near else "")


def _stop(sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(_USAGE)


class _Serve(click.Command):
    """Its help ends with the options of the engines, which are loaded only for that."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        for name in engine_names():
            with formatter.section(f"Options of the engine {name}, as -o KEY=VALUE"):
                formatter.write_dl(list(engine_options(name).items()))


serve = _Serve(
    "serve",
    callback=_serve,
    params=[
        click.Option(["--config"], type=click.Path(exists=True, dir_okay=False), help="A TOML file of settings."),
        click.Option(["--print-config"], is_flag=True, help="Print the effective settings as TOML, and end."),
        *(_option(name, field) for name, field in Settings.model_fields.items()),
    ],
    help="Serve a model over gRPC, until SIGTERM or SIGINT.",
)
"""What the entry point `doherty.commands` names."""
