"""The command `doherty serve`. Its flags are the fields of Settings."""

import difflib
import os
import sys
import typing
from typing import TYPE_CHECKING, NoReturn

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from doherty_engine import EngineSetupError, engine_names, engine_options, is_engine_installed
from doherty_service.lifecycle import run
from doherty_service.process import UnfitFileError, limit_free_memory, prepare_process
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
    limit_free_memory()
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
    """Appends the options of the installed engines to the help text. The engines are imported only for this."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = []
        for name in engine_names():
            if is_engine_installed(name):
                _write_options(name, formatter)
            else:
                others.append(name)
        if others:
            with formatter.section("Engines that are not installed"):
                formatter.write_text(f"{', '.join(others)}; `doherty serve --help-engine NAME` shows their options.")
        super().format_epilog(ctx, formatter)


def _write_options(engine: str, formatter: click.HelpFormatter) -> None:
    with formatter.section(f"Options of the engine {engine}, as -o KEY=VALUE"):
        formatter.write_dl(list(engine_options(engine).items()))


def _show_engine(context: click.Context, _: click.Parameter, name: str | None) -> None:
    if name is None or context.resilient_parsing:
        return
    formatter = context.make_formatter()
    _write_options(name, formatter)
    click.echo(formatter.getvalue(), nl=False)
    context.exit()


_EXAMPLES = """\
\b
Examples:
  doherty serve
  doherty serve --model ~/models/qwen.gguf -o threads=8
  doherty serve --engine synthetic --listen 127.0.0.1:0
  doherty serve --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem --keys-file keys.json
  doherty serve --config doherty.toml --print-config
  doherty serve --help-engine vllm
"""

serve = _Serve(
    "serve",
    callback=_serve,
    params=[
        click.Option(["--config"], type=click.Path(exists=True, dir_okay=False), help="A TOML file of settings."),
        click.Option(["--print-config"], is_flag=True, help="Print the effective settings as TOML and exit."),
        click.Option(
            ["--help-engine"],
            type=click.Choice(engine_names()),
            callback=_show_engine,
            expose_value=False,
            is_eager=True,
            help="Show the options of an engine, installed or not, and exit.",
        ),
        *(_option(name, field) for name, field in Settings.model_fields.items()),
    ],
    help="Serve a model over gRPC, until SIGTERM or SIGINT.",
    epilog=_EXAMPLES,
)
"""The command that the entry point `doherty.commands` refers to."""
