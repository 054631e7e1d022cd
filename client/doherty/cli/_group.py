"""The group of all commands. Each command is loaded when it is used."""

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

import click
from click.shell_completion import CompletionItem

from doherty import __version__
from doherty.cli._exit import EPILOG, INTERRUPTED, Missing, ending_with_the_reader, tell
from doherty.cli._terminal import wants_color
from doherty_extras import install_command

_OWN: Final = {
    "generate": "_generate",
    "chat": "_chat",
    "count": "_count",
    "bench": "_bench",
    "health": "_health",
    "model": "_model",
    "latency": "_latency",
    "completion": "_completion",
}

# The help of each command, so that showing it does not import gRPC and the server, which takes a second.
SUMMARIES: Final = {
    "generate": "Generate one answer and stream it to stdout.",
    "chat": "Chat with the model.",
    "count": "Count the tokens of a prompt as the model reads it.",
    "bench": "Run the reference benchmark, or a load of your own.",
    "health": "Show whether the server accepts requests.",
    "model": "Show the server's model and the features that it supports.",
    "latency": "Show the latency of the server.",
    "completion": "Print the completion script for a shell.",
    "engine": "Show an engine's profiles, prepare a model for it, and verify that it works on this machine.",
    "keys": "Add, change, list and revoke the API keys of a server.",
    "serve": "Serve a model over gRPC, until SIGTERM or SIGINT.",
}


class _Group(click.Group):
    """The commands of this package and those in the entry-point group `doherty.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name in SUMMARIES if name in _OWN or _entry_point(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name in _OWN:
            return cast("click.Command", getattr(import_module(f"doherty.cli.{_OWN[cmd_name]}"), cmd_name))
        entry_point = _entry_point(cmd_name)
        return _load(entry_point) if entry_point else None

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parses the command line; a help text is printed here."""
        with ending_with_the_reader():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with ending_with_the_reader():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes names without loading the commands, which would take seconds."""
        names = (name for name in self.list_commands(ctx) if name.startswith(incomplete))
        return [
            *(CompletionItem(name, help=SUMMARIES[name]) for name in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in self.list_commands(ctx)])


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group="doherty.commands", name=name)), None)


def _load(entry_point: EntryPoint) -> click.Command:
    try:
        return cast("click.Command", entry_point.load())
    except ModuleNotFoundError as error:
        sentence = f"'{entry_point.name}' needs {error.name}, of the server's extra: {install_command('server')}"
        raise Missing(sentence) from error


_EXAMPLES: Final = """\
\b
Examples:
  doherty serve
  doherty generate "What atoms are in water?"
  doherty chat --target gpu1:50051
"""


@click.group(cls=_Group, epilog=f"{_EXAMPLES}\n{EPILOG}", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def _doherty() -> None:
    """Call an LLM server that answers within the Doherty threshold of 400 ms, or run one."""


def run() -> int:
    """Runs the command line, and returns the exit code."""
    try:
        # A command returns None; a number comes from `Context.exit`.
        code: int | None = _doherty.main(prog_name="doherty", standalone_mode=False, color=wants_color())
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        tell(error)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return code or 0
