import json
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from doherty import Client, __version__
from doherty.cli import _group
from support.command import DOHERTY, SECONDS, environment, run_doherty
from support.server import ServerProcess, start_server

NOBODY = "127.0.0.1:1"
CALLING = ("generate", "chat", "count", "bench", "health", "model", "latency")
COMMANDS = (*CALLING, "completion")


def one_line(finished: subprocess.CompletedProcess[str]) -> str:
    """Returns what the command wrote to stderr, which must be one line."""
    assert finished.stderr.startswith("doherty: "), finished.stderr
    assert finished.stderr.count("\n") == 1, finished.stderr
    return finished.stderr


def test_help_lists_every_command_and_the_exit_codes() -> None:
    finished = run_doherty("--help")
    assert finished.returncode == 0
    assert "0    done\n" in finished.stdout
    for name in (*COMMANDS, "serve"):
        assert f"\n  {name} " in finished.stdout


def test_help_loads_neither_grpc_nor_the_server() -> None:
    finished = run_doherty("--help", without="grpc doherty_service pydantic rich.table")
    assert finished.returncode == 0, finished.stderr


def test_the_summary_of_a_command_is_the_same_in_both_helps() -> None:
    context = click.Context(click.Group())
    group = next(value for value in vars(_group).values() if isinstance(value, click.Group))
    assert set(_group.SUMMARIES) == {*COMMANDS, *(entry.name for entry in entry_points(group="doherty.commands"))}
    for name, summary in _group.SUMMARIES.items():
        command = group.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == summary


def test_version() -> None:
    assert run_doherty("--version").stdout == f"doherty {__version__}\n"


@pytest.mark.parametrize("missing", ["click", "rich", "prompt_toolkit"])
def test_without_its_extra_the_command_names_the_extra(missing: str) -> None:
    finished = run_doherty("chat", without=missing)
    assert finished.returncode == 2
    assert "pip install 'doherty[cli]'" in one_line(finished)


def test_without_the_server_serve_names_its_extra() -> None:
    finished = run_doherty("serve", without="pydantic_settings")
    assert finished.returncode == 2
    assert "pip install 'doherty[server]'" in one_line(finished)


def test_serve_runs_the_command_of_the_server() -> None:
    finished = run_doherty("serve", "--engine", "synthetic", "-o", "slots=none")
    assert finished.returncode == 2
    assert "slots" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("generat",), "generat"),
        (("generate", "--wrong"), "--wrong"),
        (("generate", "Hi", "--temperature", "hot"), "--temperature"),
        (("generate", "Hi", "--seed", "-1"), "seed"),
        (("generate", "Hi", "--schema", "@/no/such/file"), "/no/such/file"),
        (("latency", "--window", "0"), "--window"),
        (("model", "--timeout", "0"), "--timeout"),
        (("bench", "--max-output-tokens", "0"), "--max-output-tokens"),
    ],
)
def test_the_exit_code_is_2_and_the_help_is_named_if_the_command_line_is_wrong(
    arguments: tuple[str, ...], part: str
) -> None:
    finished = run_doherty(*arguments, DOHERTY_TARGET=NOBODY)
    assert finished.returncode == 2
    assert part in one_line(finished)
    assert "--help'" in finished.stderr


@pytest.mark.parametrize("name", CALLING)
def test_the_exit_code_is_3_if_no_server_is_reached(name: str) -> None:
    finished = run_doherty(name, *(["Hi"] if name in ("generate", "count") else []), "--target", NOBODY, text="Hi\n")
    assert finished.returncode == 3
    assert NOBODY in one_line(finished)
    assert finished.stdout == ""


def test_the_exit_code_is_1_if_the_server_refuses_the_request(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("generate", "Hi", "--temperature", "9", "--target", synthetic_server.target)
    assert finished.returncode == 1
    assert "temperature: must be from 0 to 2" in one_line(finished)


def test_the_exit_code_is_3_if_a_call_takes_too_long() -> None:
    with start_server("--engine", "synthetic", "-o", "prefill_seconds=60") as server:
        finished = run_doherty("generate", "Hi", "--timeout", "0.2", "--target", server.target)
    assert finished.returncode == 3
    assert "DEADLINE_EXCEEDED" in one_line(finished)


def test_the_exit_code_is_3_and_the_text_stays_if_an_answer_is_cut_off() -> None:
    with start_server("--engine", "synthetic", "-o", "die_after_steps=3") as server:
        finished = run_doherty("generate", "Hi", "--timeout", "3", "--target", server.target)
    assert finished.returncode == 3
    assert finished.stdout.strip()
    assert finished.stdout.endswith("\n")
    assert "UNAVAILABLE" in one_line(finished)


def test_the_exit_code_is_130_after_ctrl_c() -> None:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server:
        command = (*DOHERTY, "generate", "Hi", "--target", server.target)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("arguments", [("generate", "Hi"), ("latency", "--watch", "0.1"), ("generate", "--help")])
def test_the_command_ends_quietly_if_its_reader_goes_away(
    synthetic_server: ServerProcess, arguments: tuple[str, ...]
) -> None:
    process = subprocess.Popen(
        (*DOHERTY, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(DOHERTY_TARGET=synthetic_server.target),
    )
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (141, b"")


def test_health_reports_a_server_that_serves(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("health", DOHERTY_TARGET=synthetic_server.target)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "SERVING\n", "")
    printed = run_doherty("health", "--json", DOHERTY_TARGET=synthetic_server.target).stdout
    assert json.loads(printed) == {"status": "SERVING"}


def test_health_reports_a_server_that_still_loads() -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=600", until="listening") as server:
        health = run_doherty("health", "--target", server.target)
        generate = run_doherty("generate", "Hi", "--target", server.target)
    assert (health.returncode, health.stdout) == (4, "NOT_SERVING\n")
    assert generate.returncode == 3
    one_line(generate)


def test_model(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("model", "--target", synthetic_server.target)
    printed = json.loads(run_doherty("model", "--json", "--target", synthetic_server.target).stdout)
    assert finished.returncode == 0
    with Client(synthetic_server.target) as client:
        info = client.model()
    assert printed["limits"]["context_tokens"] == info.limits.context_tokens
    assert printed["features"] == list(info.features)
    rows = dict(line.split(maxsplit=1) for line in finished.stdout.splitlines() if line.count(" "))
    assert rows["model"] == info.model
    assert rows["features"] == ", ".join(info.features)
    assert "\x1b" not in finished.stdout


def test_latency() -> None:
    with start_server("--engine", "synthetic") as server:
        for _ in range(3):
            assert run_doherty("generate", "Hi", "--max-output-tokens", "4", "--target", server.target).returncode == 0
        table = run_doherty("latency", "--target", server.target)
        printed = json.loads(run_doherty("latency", "--json", "--window", "120", "--target", server.target).stdout)
    assert table.returncode == 0
    assert table.stdout.startswith("3 answers in the last ")
    assert (printed["answers"], printed["window"], printed["slots"]) == (3, 120, 64)
    for name, part in (("first token", "time_to_first_token"), ("last token", "time_to_last_token")):
        row = next(line for line in table.stdout.splitlines() if line.startswith(name))
        expected = [f"{printed[part][quantile] * 1000:.1f}" for quantile in ("p50", "p90", "p99")]
        assert row.split()[-3:] == expected


def test_latency_reports_the_restarts_of_the_engine() -> None:
    # The warm-up takes two steps.
    with start_server("--engine", "synthetic", "-o", "die_after_steps=4") as server, Client(server.target) as client:
        assert client.latency().engine_restarts == 0
        assert run_doherty("generate", "Hi", "--timeout", "3", "--target", server.target).returncode == 3
        server.wait_for("ready")
        ends_at = time.monotonic() + 60
        while not (restarts := client.latency().engine_restarts):
            assert time.monotonic() < ends_at
        shown = run_doherty("latency", "--target", server.target).stdout
    assert f"; engine restarted {restarts}x\n" in shown


def test_latency_can_show_only_the_window() -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=4") as server, Client(server.target) as client:
        client.generate("Hi")
        ends_at = time.monotonic() + 60
        while json.loads(run_doherty("latency", "--json", "--window", "0.001", "--target", server.target).stdout)[
            "answers"
        ]:
            assert time.monotonic() < ends_at
        assert client.latency().answers == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_the_shell_needs(shell: str) -> None:
    finished = run_doherty("completion", shell)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert f"_DOHERTY_COMPLETE={shell}_complete" in finished.stdout


def test_bash_completes_commands_and_flags_without_loading_grpc(tmp_path: Path) -> None:
    (tmp_path / "doherty").write_text(f'#!/bin/sh\nexec {sys.executable} -m doherty.cli "$@"\n')
    (tmp_path / "doherty").chmod(0o755)
    script = """
        eval "$(doherty completion bash 2>/dev/null)"
        for words in "doherty l" "doherty latency --wa"; do
            COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
            _doherty_completion doherty 2>/dev/null
            echo "${COMPREPLY[@]}"
        done
    """
    path = f"{tmp_path}:{environment()['PATH']}"
    finished = subprocess.run(
        ("bash", "-c", script),
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=SECONDS,
        env=environment(PATH=path),
    )
    assert finished.stdout == "latency\n--watch\n", finished.stderr
    blocked = {"_DOHERTY_COMPLETE": "bash_complete", "COMP_WORDS": "doherty l", "COMP_CWORD": "1"}
    assert run_doherty(without="grpc doherty_service", **blocked).stdout == "plain,latency\n"


def test_without_a_command_the_help_is_shown() -> None:
    bare, help_output = run_doherty(), run_doherty("--help")
    assert (bare.returncode, help_output.returncode) == (2, 0)
    assert bare.stderr.strip() == help_output.stdout.strip()
    assert bare.stderr.count("\n") > 10
