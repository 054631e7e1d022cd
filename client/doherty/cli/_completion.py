"""The command `doherty completion`."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from doherty.cli._exit import Failed

_EXAMPLES: Final = """\
\b
Examples that enable completion in every new shell:
  echo 'eval "$(doherty completion bash)"' >> ~/.bashrc
  echo 'eval "$(doherty completion zsh)"' >> ~/.zshrc
  doherty completion fish > ~/.config/fish/completions/doherty.fish
"""


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, /, *, shell: str) -> None:
    """Print the completion script for a shell.

    It needs bash 4.4 or newer.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Failed(f"This version of click cannot complete in {shell}.")
    root = context.find_root()
    click.echo(kind(root.command, {}, "doherty", "_DOHERTY_COMPLETE").source())
