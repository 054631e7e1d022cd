import json
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from doherty import AsyncClient, Client, __version__
from doherty.cli import QUESTIONS
from doherty.cli._load._json import SCHEMA
from doherty.cli._load._plot import draw
from doherty.cli._load._run import LoadOptions, LoadResult, run_load
from doherty.cli._load._statistics import quantiles
from support.command import DOHERTY, run_doherty
from support.server import ServerProcess, start_server
from support.terminal import on_a_terminal


@pytest.fixture(scope="module")
def quick() -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=9") as server:
        yield server


def load(target: str, *flags: str, code: int = 0) -> dict[str, Any]:
    finished = run_doherty("bench", *flags, "--json", "--target", target)
    assert finished.returncode == code, finished.stderr
    printed: dict[str, Any] = json.loads(finished.stdout)
    return printed


def side(printed: dict[str, Any]) -> dict[str, Any]:
    (target,) = printed["targets"]
    assert isinstance(target, dict)
    return target


def test_a_closed_loop(quick: ServerProcess) -> None:
    printed = load(quick.target, "--concurrency", "3", "--requests", "12")
    measured = side(printed)
    assert (printed["load"]["loop"], printed["load"]["concurrency"], printed["interrupted"]) == ("closed", 3, False)
    assert (measured["requests"], measured["answers"], measured["output_tokens"]) == (12, 12, 108)
    assert (measured["errors"], measured["turned_away"]) == ([], {"refusals": 0, "aborts": {}})
    assert measured["tokens_per_second"] == pytest.approx(108 / measured["seconds"])
    for name in ("time_to_first_token", "time_to_last_token", "total"):
        assert measured["client"][name]["p50"] > measured["server"][name]["p50"] > 0
    for times in measured["client"].values():
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
    assert measured["late"]["p99"] == 0
    generator = printed["generator"]
    assert 12 <= generator["messages"] <= 108
    parts = generator["send_wait"]["p50"], generator["mean_loop_lag"], generator["cpu_per_message"]
    assert min(parts) > 0
    assert generator["per_time"] == pytest.approx(sum(parts))
    assert "ratios" not in printed


def test_the_help_contains_the_schema(quick: ServerProcess) -> None:
    printed = load(quick.target, "--compare", quick.target, quick.target, "--requests", "2")
    names = {name for part in (printed, printed["load"], printed["targets"][0], printed["generator"]) for name in part}
    names |= set(printed["targets"][0]["client"]) | set(printed["targets"][0]["server"])
    assert not [name for name in sorted(names) if name not in SCHEMA]
    finished = run_doherty("bench", "--help")
    assert SCHEMA.splitlines()[-1].strip() in finished.stdout


def test_an_open_loop_measures_from_the_time_at_which_a_request_was_due(quick: ServerProcess) -> None:
    printed = load(quick.target, "--rate", "40", "--requests", "20", "--seed", "5", "--warm-up", "0")
    measured = side(printed)
    assert (printed["load"]["loop"], printed["load"]["rate"], printed["load"]["seed"]) == ("open", 40, 5)
    assert (printed["load"]["concurrency"], measured["answers"]) == (None, 20)
    assert measured["late"]["p50"] > 0
    # A delay before the request was sent is part of the total, but not of the time outside of the server.
    assert measured["client"]["total"]["p50"] > measured["server"]["total"]["p50"] + measured["late"]["p50"] / 2


def test_unary_calls_have_no_first_token_at_the_client(quick: ServerProcess) -> None:
    measured = side(load(quick.target, "--unary", "--requests", "4"))
    assert measured["answers"] == 4
    assert measured["client"]["time_to_first_token"]["p50"] is None
    assert measured["client"]["inter_token_latency"]["p50"] is None
    assert measured["server"]["time_to_first_token"]["p50"] > 0
    assert measured["within_threshold"]["time_to_first_token"] is None


def test_a_load_can_have_a_duration(quick: ServerProcess) -> None:
    printed = load(quick.target, "--duration", "0.5", "--concurrency", "2", "--max-output-tokens", "3")
    assert printed["load"]["requests"] is None
    assert side(printed)["answers"] > 2
    assert side(printed)["output_tokens"] == 3 * side(printed)["answers"]


def test_prompts_are_read_from_a_file_in_order(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "And three?"},
    ]
    path.write_text(json.dumps({"prompt": "Why?"}) + "\n" + json.dumps({"messages": turns}) + "\n")
    with start_server("--engine", "synthetic", "-o", "answer_tokens=2") as server, Client(server.target) as client:
        assert load(server.target, "--prompts", str(path), "--requests", "4", "--warm-up", "0")["load"]["prompts"] == 2
        sizes = [client.count_tokens("Why?"), client.count_tokens(turns)]
        server.stop()
        server.wait_for("stopped")
    prompt_tokens = [line["prompt_tokens"] for line in server.log if line.get("rpc") == "StreamGenerate"]
    assert prompt_tokens == [*sizes, *sizes]


def test_failures_are_counted_by_code_and_reason() -> None:
    flags = ("-o", "slots=1", "-o", "answer_tokens=9", "--max-queued-requests", "1")
    with start_server("--engine", "synthetic", *flags) as server:
        printed = load(server.target, "--concurrency", "6", "--requests", "30", "--warm-up", "0")
        people = run_doherty("bench", "--concurrency", "6", "--requests", "30", "--target", server.target)
    measured = side(printed)
    (error,) = measured["errors"]
    assert error["code"] == "RESOURCE_EXHAUSTED"
    assert error["count"] == 30 - measured["answers"] == measured["turned_away"]["refusals"] > 0
    assert people.returncode == 0
    assert re.search(rf"^RESOURCE_EXHAUSTED +{error['reason']} +\d+$", people.stdout, re.MULTILINE)
    assert "refused, aborted: none (of all its callers)" in people.stdout


def test_without_any_answer_the_exit_code_is_that_of_the_first_failure() -> None:
    with start_server("--engine", "synthetic", "-o", "fail_after_tokens=1") as server:
        finished = run_doherty("bench", "--requests", "3", "--target", server.target)
    assert finished.returncode == 3
    assert "0 of 3 requests answered" in finished.stdout
    assert finished.stderr.startswith("doherty: ")
    assert finished.stderr.count("\n") == 1


def test_two_servers_are_compared(quick: ServerProcess) -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=9", "-o", "tokens_per_second=20") as slow:
        flags = ("--compare", quick.target, slow.target, "--requests", "12")
        printed = load(quick.target, *flags, "--concurrency", "2", "--block", "3")
        people = run_doherty("bench", *flags)
    assert [target["target"] for target in printed["targets"]] == [quick.target, slow.target]
    assert [target["answers"] for target in printed["targets"]] == [12, 12]
    assert printed["load"]["block"] == 3
    # 200 tokens per second, and 20.
    pace = printed["ratios"]["time_per_output_token"]
    assert 2 < pace["low"] <= pace["ratio"] <= pace["high"]
    assert printed["ratios"]["total"]["low"] > 1
    assert people.returncode == 0
    assert f"A: synthetic on synthetic at {quick.target}" in people.stdout
    assert "B / A, medians as the client saw them" in people.stdout


def test_without_json_it_prints_tables(quick: ServerProcess) -> None:
    finished = run_doherty("bench", "--requests", "5", "--target", quick.target)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("closed loop of 1, 5 requests, streaming, answers as long as")
    assert f"at {quick.target}\n" in finished.stdout
    rows = {line.split("  ")[0]: line.split("  ")[1:] for line in finished.stdout.splitlines() if "  " in line}
    assert {"queue", "first token (TTFT)", "between messages (ITL)", "per token (TPOT)", "total"} <= set(rows)
    assert "5 of 5 requests answered" in finished.stdout
    assert "of the median TTFT" in finished.stdout
    assert "\x1b" not in finished.stdout


def test_a_picture(quick: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "load.png"
    finished = run_doherty("bench", "--requests", "5", "--unary", "--plot", str(path), "--target", quick.target)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")


def points(axes: Axes) -> Iterator[tuple[float, float]]:
    """Returns the points of all curves and scatter plots. A curve of shares begins at minus infinity."""
    for line in axes.get_lines():
        if line.get_label() != "400 ms":
            yield from ((x, y) for x, y in np.asarray(line.get_xydata()) if isfinite(x))
    for cloud in axes.collections:
        yield from np.asarray(cloud.get_offsets())


async def draw_load(*targets: str, **options: Any) -> tuple[LoadResult, Figure]:
    load = LoadOptions(prompts=QUESTIONS, **options)
    run = await run_load([AsyncClient(target, retry=None, resume=False) for target in targets], load, lambda _: None)
    figure = draw(run)
    figure.canvas.draw()
    return run, figure


async def test_a_picture_of_two_servers_shows_the_load_and_both_distributions(quick: ServerProcess) -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=9", "-o", "tokens_per_second=20") as slow:
        run, figure = await draw_load(quick.target, slow.target, requests=12, block=3, concurrency=3)
    load, *servers = figure.get_suptitle().splitlines()
    assert load.startswith("closed loop of 3, 12 requests, in blocks of 3 in turn, streaming, ")
    assert load.endswith(f"{run.begun:%Y-%m-%d %H:%M}, doherty {__version__}")
    assert [line.partition(": ")[0] for line in servers] == [quick.target, slow.target]
    assert all(re.search(r"server \S+; 12 of 12 .* answers/s, \d+ tokens/s$", line) for line in servers)
    first, between, total, over_time = figure.axes
    assert len(over_time.collections) == 2
    for axes in (first, between, total):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert all(left < x < right and bottom <= y < top for x, y in points(axes))
        ticks = [label.get_text() for label in axes.get_xticklabels() if label.get_text()]
        assert ticks
        assert all(re.fullmatch(r"[\d.]+", tick) for tick in ticks)
    assert all(over_time.get_ylim()[0] <= y < over_time.get_ylim()[1] for _, y in points(over_time))
    for side in run.sides:
        times = quantiles(sample.time_to_first_token for sample in side.answers)
        assert times.p99 is not None
        legend = first.get_legend()
        assert legend is not None
        labels = [text.get_text() for text in legend.get_texts()]
        (of_side,) = (label for label in labels if label.startswith(f"{side.target}, client: p50 "))
        assert float(re.findall(r"p99 ([\d.]+) ms", of_side)[0]) == pytest.approx(times.p99 * 1000, rel=0.01)
        assert any(y == 0.99 and x == pytest.approx(times.p99 * 1000) for x, y in points(first))


async def test_a_picture_shows_failures() -> None:
    with start_server("--engine", "synthetic", "-o", "fail_after_tokens=1") as server:
        run, figure = await draw_load(server.target, requests=5)
    over_time = figure.axes[-1]
    (failed,) = over_time.collections
    assert (failed.get_label(), len(list(points(over_time)))) == ("failed", len(run.sides[0].samples))


def test_a_picture_needs_its_extra(quick: ServerProcess, tmp_path: Path) -> None:
    finished = run_doherty(
        "bench", "--plot", str(tmp_path / "load.png"), "--target", quick.target, without="matplotlib"
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "pip install 'doherty[plot]'" in finished.stderr


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--rate", "5", "--concurrency", "2"), "--concurrency"),
        (("--seed", "5"), "--seed"),
        (("--block", "5"), "--block"),
        (("--prompts", "/no/such/file"), "/no/such/file"),
        (("--prompts", "/dev/null"), "/dev/null"),
        (("--plot", "/no/such/folder/load.png"), "/no/such/folder"),
        (("--plot", "load.nonsense"), "nonsense"),
        (("--compare", "here", "there"), "HOST:PORT"),
    ],
)
def test_an_invalid_load_is_refused_before_it_begins(flags: tuple[str, ...], part: str) -> None:
    finished = run_doherty("bench", *flags, DOHERTY_TARGET="127.0.0.1:1")
    assert finished.returncode == 2
    assert part in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_a_progress_bar_is_shown_on_a_terminal(quick: ServerProcess) -> None:
    flags = ("--requests", "40", "--target", quick.target)
    with on_a_terminal(*DOHERTY, "bench", *flags, TERM="xterm", columns=120) as terminal:
        assert terminal.wait() == 0
    assert "/40 requests, " in terminal.screen
    assert "40 of 40 requests answered" in terminal.screen


def test_after_ctrl_c_the_results_so_far_are_printed(quick: ServerProcess) -> None:
    flags = ("--duration", "600", "--target", quick.target)
    with on_a_terminal(*DOHERTY, "bench", *flags, TERM="xterm", columns=120) as terminal:
        terminal.read_until(" requests, ")
        terminal.type("\x03")
        terminal.read_until("Interrupted; this is what was measured until then.")
        terminal.read_until("requests answered in ")
        assert terminal.wait() == 130
