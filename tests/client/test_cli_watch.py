"""`doherty latency --watch`."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from doherty import Client
from doherty.cli._trend import Trend
from support.command import DOHERTY, SECONDS, environment, run_doherty
from support.latencies import FRESH
from support.ports import free_target
from support.screen import Screen
from support.server import ServerProcess, start_server
from support.terminal import on_a_terminal


def test_rates_are_measured_since_the_previous_look() -> None:
    trend = Trend()
    first = trend.look(replace(FRESH, refusals=5), 100.0, 100.0)
    assert (first.refusals_per_second, first.aborts_per_second, first.restarts) == (None, None, 0)
    trend.look(replace(FRESH, refusals=6, aborts={"cancelled": 1}, uptime=11.0), 101.0, 101.0)
    last = trend.look(replace(FRESH, refusals=9, aborts={"cancelled": 1, "deadline": 4}, uptime=13.0), 103.0, 103.0)
    assert last.refusals_per_second == 1.5
    assert last.aborts_per_second == {"cancelled": 0.0, "deadline": 2.0}


def test_a_slow_reply_is_not_taken_for_a_restart() -> None:
    trend = Trend()
    trend.look(FRESH, 100.0, 100.1)
    assert trend.look(replace(FRESH, uptime=12.05), 102.1, 107.0).restarts == 0
    assert trend.look(replace(FRESH, uptime=13.0), 109.0, 109.0).restarts == 1


def test_after_a_restart_the_counters_begin_at_zero() -> None:
    trend = Trend()
    trend.look(replace(FRESH, refusals=50, aborts={"cancelled": 7}), 100.0, 100.0)
    after = trend.look(replace(FRESH, refusals=4, aborts={"cancelled": 2}, uptime=2.0), 160.0, 160.0)
    assert (after.restarts, after.refusals_per_second, after.aborts_per_second) == (1, 2.0, {"cancelled": 1.0})
    assert trend.look(replace(FRESH, uptime=3.0), 161.0, 161.0).restarts == 1


@contextmanager
def watching(target: str, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """Runs the command with its stdout in a pipe."""
    command = (*DOHERTY, "latency", "--watch", "0.1", *flags, "--target", target)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1"), start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def looks(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    return map(json.loads, process.stdout)


def test_json_has_one_object_per_line(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client:
        client.generate("Hello.", max_output_tokens=3)
    with watching(synthetic_server.target, "--json") as process:
        lines = looks(process)
        first, second = next(lines), next(lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    assert first["answers"] >= 1
    assert first["refusals_per_second"] is None
    assert second["refusals_per_second"] == 0
    assert second["uptime"] > first["uptime"]
    assert second["time"] > first["time"]


def test_it_continues_while_the_server_restarts() -> None:
    flags = ("--engine", "synthetic", "--listen", free_target())
    with start_server(*flags) as server, watching(server.target, "--json") as process:
        lines = looks(process)
        assert next(lines)["restarts"] == 0
        server.stop(signal.SIGKILL)
        gone = next(look for look in lines if "error" in look)
        assert server.target in gone["error"]
        with start_server(*flags):
            back = next(look for look in lines if "uptime" in look)
    assert back["restarts"] == 1


def test_a_pipe_gets_one_line_per_look(synthetic_server: ServerProcess) -> None:
    with watching(synthetic_server.target) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d \d+ answers, ms at p50/p90/p99: queue ", line), line
    assert "refused: 0 (0.0/s)" in lines[1]


def test_a_terminal_shows_one_table_that_is_redrawn() -> None:
    rows, columns = 24, 100
    with start_server("--engine", "synthetic") as server:
        command = (*DOHERTY, "latency", "--watch", "0.2", "--target", server.target)
        with on_a_terminal(*command, rows=rows, columns=columns, TERM="xterm") as terminal:
            terminal.read_until("0 answers in the last ")
            terminal.type("keys\n\n")
            with Client(server.target) as client:
                client.generate("Hello.", max_output_tokens=3)
            terminal.read_until("1 answers in the last ")
            server.stop(signal.SIGKILL)
            terminal.read_until("was not reached")
            terminal.read_until("below, what it said at ")
            terminal.read_until("up for")
            terminal.type("\x03")
            assert terminal.wait() == 130
    screen = Screen(rows, columns)
    screen.feed(terminal.output)
    assert screen.text.count("first token (TTFT)") == 1
    assert "keys" not in screen.text
    assert "1 answers in the last 300 s" in screen.text
    assert re.search(r"^refused +0 \(0\.0/s\)$", screen.text, re.MULTILINE)


@pytest.mark.parametrize("flag", ["0", "soon"])
def test_an_invalid_interval_is_refused(flag: str) -> None:
    finished = run_doherty("latency", "--watch", flag)
    assert finished.returncode == 2
    assert "--watch" in finished.stderr
