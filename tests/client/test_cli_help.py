"""The help of every command."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from doherty.cli import _group

GROUP = next(value for value in vars(_group).values() if isinstance(value, click.Group))
CALLING = ("generate", "chat", "count", "bench", "health", "model", "latency")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Returns the names of a group and of all commands below it."""
    yield path
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


ALL = list(commands(GROUP))


def help_of(path: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(GROUP, [*path, "--help"], prog_name="doherty")
    assert shown.exit_code == 0, shown.output
    return shown.output


def check(arguments: list[str]) -> None:
    """Parses a command line without running the command."""
    command: click.Command | None = GROUP
    name = "doherty"
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        command = command.get_command(click.Context(command), name)
    assert command is not None, name
    with suppress(click.exceptions.Exit):  # --help-engine
        command.make_context(name, arguments)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_the_command_accepts_the_examples_of_its_help(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOHERTY_KEYS_FILE", "keys.json")
    for name in ("real.txt", "person.json", "doherty.toml"):
        Path(name).touch()
    Path("talk.json").write_text('[{"role": "user", "content": "Hi."}]')
    _, _, examples = help_of(path).partition("\n  Examples")
    typed = re.findall(r"\bdoherty ([^&|<>)\n]+)", examples.partition("\n\n")[0])
    assert typed
    for line in typed:
        check(shlex.split(line))


@pytest.mark.parametrize("name", CALLING)
def test_the_options_of_the_connection_have_a_section(name: str) -> None:
    own, _, rest = help_of((name,)).partition("\nConnection:\n")
    connection, _, _ = rest.partition("\n\n")
    flags = re.findall(r"^  (--[a-z-]+)", connection, re.MULTILINE)
    assert flags == [
        "--target",
        "--timeout",
        "--api-key-file",
        "--tls",
        "--tls-ca",
        "--tls-cert",
        "--tls-key",
        "--insecure",
    ]
    assert not [flag for flag in flags if re.search(rf"^  {flag}\b", own, re.MULTILINE)]


@pytest.mark.parametrize("path", [path for path in ALL if path], ids=" ".join)
def test_every_command_that_prints_results_can_print_json(path: tuple[str, ...]) -> None:
    without = {("keys",), ("engine",), ("completion",), ("serve",), ("engine", "prepare")}
    assert ("\n  --json " in help_of(path)) == (path not in without)
