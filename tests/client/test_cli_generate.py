import base64
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from doherty import Client
from support.command import DOHERTY, SECONDS, environment, run_doherty
from support.server import start_server
from support.serving import answer, serve
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


def test_stdin_joins_the_prompt(target: str) -> None:
    finished = run_doherty("generate", "Summarize:", "--target", target, text="A text.\n")
    assert finished.stdout == answer_of(target, "Summarize:\n\nA text.\n") + "\n"


def test_waiting_for_an_open_pipe_is_reported() -> None:
    command = (*DOHERTY, "generate", "Hi", "--target", "127.0.0.1:1")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    with process:
        assert process.stderr is not None
        hint = process.stderr.readline()
        assert "from stdin; '< /dev/null' leaves it out" in hint
        process.communicate(timeout=SECONDS)
    assert process.returncode == 3


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_file_of_messages_comes_before_the_prompt(target: str, tmp_path: Path, *, is_saved: bool) -> None:
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({"model": "m", "system": "Be brief.", "messages": turns} if is_saved else turns))
    conversation = [*turns, {"role": "user", "content": "And you?"}]
    with Client(target) as client:
        expected = client.generate(conversation, system="Be brief." if is_saved else None).text
    finished = run_doherty("generate", "And you?", "--messages", str(path), "--target", target)
    assert (finished.returncode, finished.stdout) == (0, expected + "\n")


@pytest.mark.parametrize("content", ["?", "[]", "7", "{}", '[{"role": "nobody", "content": "a"}]', '{"messages": "a"}'])
def test_a_file_that_is_not_a_conversation_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(content)
    finished = run_doherty("generate", "Hi", "--messages", str(path), DOHERTY_TARGET="127.0.0.1:1")
    assert finished.returncode == 2
    assert f"{path} is not a conversation in JSON: " in finished.stderr


def test_the_prompt_is_an_argument(target: str) -> None:
    assert run_doherty("generate", "Hi", "--target", target).stdout == answer_of(target, "Hi") + "\n"


def test_every_flag_reaches_the_server(target: str, tmp_path: Path) -> None:
    def ask(*flags: str) -> dict[str, object]:
        finished = run_doherty("generate", "Hi", *flags, "--json", "--target", target)
        assert finished.returncode == 0, finished.stderr
        printed: dict[str, object] = json.loads(finished.stdout)
        return printed

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


def test_every_constraint_reaches_the_server(tmp_path: Path) -> None:
    (tmp_path / "grammar").write_text('root ::= "never"')
    with serve(lambda _, __: iter(answer())) as serving:
        for flags in (
            ("--choices", "yes, no", "--top-k", "3"),
            ("--choices", '["a, b", "c"]', "--choices", "d"),
            ("--regex", "[0-9]{4}"),
            ("--grammar", 'root ::= "always"'),
            ("--grammar", f"@{tmp_path / 'grammar'}"),
        ):
            assert run_doherty("generate", "Hi", *flags, "--target", serving.target).returncode == 0
    first, second, third, fourth, fifth = serving.requests
    assert (list(first.constraint.choices.choices), first.sampling.top_k) == (["yes", "no"], 3)
    assert list(second.constraint.choices.choices) == ["a, b", "c", "d"]
    assert third.constraint.regex == "[0-9]{4}"
    assert fourth.constraint.grammar == 'root ::= "always"'
    assert fifth.constraint.grammar == 'root ::= "never"'


@pytest.mark.parametrize("choices", ["[1]", "["])
def test_choices_that_are_not_strings_are_refused(target: str, choices: str) -> None:
    finished = run_doherty("generate", "Hi", "--choices", choices, "--target", target)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1)
    assert "choices" in finished.stderr


def test_log_probabilities_are_shown_in_a_table_below_the_answer(target: str) -> None:
    flags = ("--logprobs", "1", "--max-output-tokens", "3", "--temperature", "0", "--target", target)
    answer, *_, first, _, _ = run_doherty("generate", "Hi", *flags).stdout.splitlines()
    logprobs = json.loads(run_doherty("generate", "Hi", *flags, "--json").stdout)["logprobs"]
    assert len(logprobs) == 3
    assert answer.startswith(logprobs[0]["text"])
    assert base64.b64decode(logprobs[0]["token"]) == logprobs[0]["text"].encode()
    assert logprobs[0]["top"][0]["text"] == logprobs[0]["text"]
    share = f"{math.exp(logprobs[0]['logprob']):.1%}"
    token = repr(logprobs[0]["text"])
    assert first.split() == [*token.split(), f"{logprobs[0]['logprob']:.3f}", share, *token.split(), share]


def test_verbose_prints_the_attempts_and_the_figures_of_the_answer(target: str) -> None:
    flags = ("--max-output-tokens", "3", "--verbose", "--target", f"127.0.0.1:1,{target}")
    with on_a_terminal(*DOHERTY, "generate", "Hi", *flags) as terminal:
        assert terminal.wait() == 0
    printed = terminal.output.replace("\r", "")
    assert re.search(rf"^[-\d]+ [:,\d]+ StreamGenerate at {target}: OK", printed, re.MULTILINE)
    assert re.search(r"^answer +3 tokens, length$", printed, re.MULTILINE)
    assert re.search(r"^total +[\d.]+ ms$", printed, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("Hello there",), ("--system", "Be brief."), ("Hello", "--json")])
def test_count_prints_the_count_of_the_server(target: str, arguments: tuple[str, ...]) -> None:
    piped = "" if "Hello there" in arguments else "A text.\n"
    finished = run_doherty("count", *arguments, "--target", target, text=piped)
    prompt = {"Hello there": "Hello there", "--system": piped, "Hello": f"Hello\n\n{piped}"}[arguments[0]]
    with Client(target) as client:
        expected = client.count_tokens(prompt, system="Be brief." if "--system" in arguments else None)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout) == ({"tokens": expected} if "--json" in arguments else expected)


def test_json_contains_the_whole_result(target: str) -> None:
    printed = json.loads(run_doherty("generate", "Hi", "--max-output-tokens", "9", "--json", "--target", target).stdout)
    assert printed["usage"]["output_tokens"] == 9
    assert printed["finish_reason"] == "length"
    timings = printed["timings"]
    assert timings["total"] >= timings["time_to_last_token"] >= timings["time_to_first_token"] > 0
    assert printed["network"] >= 0


def test_the_pace_is_shown_on_a_terminal(target: str) -> None:
    command = (*DOHERTY, "generate", "Hi", "--max-output-tokens", "9", "--target", target)
    with on_a_terminal(*command) as terminal:
        assert terminal.wait() == 0
    assert "9 tokens, first after " in terminal.screen
    assert terminal.screen.rstrip().endswith("tokens/s, length")


def test_a_prompt_is_required_on_a_terminal(target: str) -> None:
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


def test_a_pipe_gets_no_figures_but_a_note_if_the_answer_is_cut(target: str) -> None:
    whole = run_doherty("generate", "Hi", "--target", target)
    cut = run_doherty("generate", "Hi", "--max-output-tokens", "9", "--target", target)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert (cut.returncode, cut.stderr) == (0, "doherty: the answer was cut off (length)\n")


@pytest.mark.parametrize("arguments", [("",), ("-",), ()])
def test_an_empty_prompt_is_refused(target: str, arguments: tuple[str, ...]) -> None:
    finished = run_doherty("generate", *arguments, "--target", target, text="\n")
    assert finished.returncode == 2
    assert "prompt" in finished.stderr
