import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from doherty import Client
from support.command import DOHERTY, SECONDS, environment, run_doherty
from support.server import start_server
from support.terminal import on_a_terminal


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=40") as server:
        yield server.target


def answer_of(target: str, prompt: str) -> str:
    with Client(target) as client:
        return client.generate(prompt).text


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_the_prompt_comes_from_stdin(target: str, arguments: tuple[str, ...]) -> None:
    finished = run_doherty("generate", *arguments, "--target", target, text="Où est la gare ?\n")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == answer_of(target, "Où est la gare ?\n") + "\n"


def test_the_prompt_is_an_argument(target: str) -> None:
    assert run_doherty("generate", "Hi", "--target", target).stdout == answer_of(target, "Hi") + "\n"


def test_every_flag_reaches_the_server(target: str, tmp_path: Path) -> None:
    def ask(*flags: str) -> dict[str, object]:
        finished = run_doherty("generate", "Hi", *flags, "--json", "--target", target)
        assert finished.returncode == 0, finished.stderr
        told: dict[str, object] = json.loads(finished.stdout)
        return told

    plain = ask()
    words = str(plain["text"]).split()
    assert ask("--max-output-tokens", "3")["finish_reason"] == "length"
    assert ask("--stop", "nowhere", "--stop", words[3])["stop_text"] == words[3]
    assert ask("--temperature", "1", "--top-p", "0.5", "--seed", "7")["seed"] == 7
    assert ask("--time-limit", "0.05")["finish_reason"] == "time_limit"
    assert ask("--system", "Be brief.")["text"] != plain["text"]
    assert ask("--adapter", "demo-a")["text"] != plain["text"]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for given in (json.dumps(schema), f"@{tmp_path / 'schema.json'}"):
        assert isinstance(json.loads(str(ask("--schema", given)["text"]))["n"], int)


def test_json_is_the_whole_result(target: str) -> None:
    told = json.loads(run_doherty("generate", "Hi", "--max-output-tokens", "9", "--json", "--target", target).stdout)
    assert told["usage"]["output_tokens"] == 9
    assert told["finish_reason"] == "length"
    timings = told["timings"]
    assert timings["total"] >= timings["time_to_last_token"] >= timings["time_to_first_token"] > 0
    assert told["network"] >= 0


def test_on_a_terminal_the_pace_is_told(target: str) -> None:
    command = (*DOHERTY, "generate", "Hi", "--max-output-tokens", "9", "--target", target)
    with on_a_terminal(*command) as terminal:
        assert terminal.wait() == 0
    assert "9 tokens, first after " in terminal.screen
    assert terminal.screen.rstrip().endswith("tokens/s, length")


def test_on_a_terminal_a_prompt_is_needed(target: str) -> None:
    with on_a_terminal(*DOHERTY, "generate", "--target", target) as terminal:
        assert terminal.wait() == 2
    assert "There is no prompt" in terminal.screen


def test_an_argument_that_is_not_text_is_refused(target: str) -> None:
    finished = run_doherty("generate", "\udcff", "--target", target)
    assert finished.returncode == 2
    assert finished.stderr.startswith("doherty: prompt ")


@pytest.mark.parametrize("command", ["generate", "chat"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_piped_bytes_that_are_not_text_are_refused(target: str, command: str, locale: str) -> None:
    finished = subprocess.run(
        (*DOHERTY, command, "--target", target),
        input=b"\xff\n",
        capture_output=True,
        check=False,
        timeout=SECONDS,
        env=environment(LC_ALL=locale),
    )
    assert finished.returncode == 2
    assert b"is not UTF-8" in finished.stderr
    assert finished.stderr.count(b"\n") == 1


def test_in_a_pipe_only_a_cut_is_told(target: str) -> None:
    whole = run_doherty("generate", "Hi", "--target", target)
    cut = run_doherty("generate", "Hi", "--max-output-tokens", "9", "--target", target)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert (cut.returncode, cut.stderr) == (0, "doherty: the answer was cut off (length)\n")


@pytest.mark.parametrize("arguments", [("",), ("-",), ()])
def test_an_empty_prompt_is_refused(target: str, arguments: tuple[str, ...]) -> None:
    finished = run_doherty("generate", *arguments, "--target", target, text="\n")
    assert finished.returncode == 2
    assert "prompt" in finished.stderr
