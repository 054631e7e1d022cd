"""Compares docs/sdk.md with the code and a running server."""

import inspect
import re
import shlex
import subprocess
import sys
from ast import literal_eval
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import trustme

import doherty
from doherty import Client, GenerateOptions, RetryPolicy, RpcError
from doherty.cli import _exit
from support.guide import GUIDE, blocks, program
from support.server import ServerProcess

TEXT = GUIDE.read_text()


def write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("me")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "client.pem")
    issued.private_key_pem.write_to_path(folder / "client.key")


def test_the_code_runs(synthetic_server: ServerProcess, tmp_path: Path) -> None:
    write_certificates(tmp_path)
    source = tmp_path / "guide.py"
    source.write_text(program().replace("localhost:50051", synthetic_server.target))
    command = [sys.executable, "-W", "error", str(source)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "[('sampling.temperature', 'must be from 0 to 2')]" in finished.stdout


def rows(*header: str) -> dict[str, str]:
    """Returns the first and the second column of the table with this header."""
    _, _, rest = TEXT.partition(f"\n| {' | '.join(header)} |\n")
    table = rest.partition("\n\n")[0].splitlines()[1:]
    return dict(re.findall(r"^\| `?(.*?)`? \| (.*?) \|", "\n".join(table), re.MULTILINE))


def test_every_error_has_a_row() -> None:
    errors = [name for name in doherty.__all__ if name.endswith("Error")]
    documented = list(rows("error", "when", "what to do"))
    assert sorted([*documented, "DohertyError", "RpcError"]) == sorted(errors)
    of_calls = documented[: documented.index("InternalError") + 1]
    assert set(of_calls) == {error.__name__ for error in RpcError.__subclasses__()}


@pytest.mark.parametrize(
    "names",
    [
        set(inspect.signature(Client.generate).parameters) - {"self", "prompt", "options"},
        set(inspect.signature(Client).parameters) - {"target"},
        {field.name for field in fields(GenerateOptions)},
        {field.name for field in fields(RetryPolicy)},
        {name for name, _ in inspect.getmembers(Client) if not name.startswith("_")} - {"target"},
    ],
    ids=["parameters of generate", "parameters of Client", "GenerateOptions", "RetryPolicy", "methods"],
)
def test_every_name_is_mentioned(names: set[str]) -> None:
    code = " ".join(re.findall(r"`[^`\n]+`", TEXT)) + "".join(blocks("python"))
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()


def test_the_defaults_of_retries_are_correct() -> None:
    documented = re.findall(r"`(\w+)`\s\(([\w.]+)", TEXT.partition("`RetryPolicy` has")[2].partition("\n\n")[0])
    assert {name: literal_eval(value) for name, value in documented} == asdict(RetryPolicy())


def test_the_exit_codes_equal_those_of_the_command() -> None:
    assert rows("code", "meaning") == dict(re.findall(r"^  (\d+) +(.+)$", _exit.EPILOG, re.MULTILINE))


def test_the_environment_variables_are_those_that_the_sdk_reads() -> None:
    package = Path(doherty.__file__).parent
    sources = [path.read_text() for path in package.glob("_*/*.py")]
    read = set(re.findall(r'environ\S*\("(DOHERTY_\w+)"\)', "".join(sources)))
    assert set(rows("variable", "meaning")) == read != set()


def test_the_command_accepts_the_shell_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("real.txt").write_text("Hello\n")
    Path("person.json").write_text("{}")
    Path("talk.json").write_text('[{"role": "user", "content": "Hello"}]')
    lines = "\n".join(blocks("bash")).splitlines()
    commands = [part for line in lines for part in re.findall(r"\bdoherty (?:[^&|<#)]|&(?!&))+", line)]
    assert len(commands) > len(lines)
    for command in commands:
        _, name, *arguments = shlex.split(command)
        chosen: click.Command = getattr(import_module(f"doherty.cli._{name}"), name)
        chosen.make_context(name, arguments)


@pytest.mark.parametrize("kind", [doherty.ModelInfo, doherty.Latency, doherty.Limits])
def test_every_field_of_a_model_and_a_latency_is_explained(kind: type[Any]) -> None:
    section = TEXT.partition("## What a server reports about itself")[2].partition("\n## ")[0]
    assert {field.name for field in fields(kind)} - set(re.findall(r"`(\w+)`", section)) == set()
