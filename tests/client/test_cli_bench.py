import json
import re
from typing import Any

import pytest

from doherty import FinishReason, Generation, Timings, Usage
from doherty.cli import QUESTIONS
from doherty.cli._load._statistics import percentile
from doherty.cli._report import Measurement, percentiles, within_threshold
from support.command import run_doherty
from support.server import ServerProcess, start_server


def measured(last: float | None, client_total: float = 9.0, per_token: float | None = None) -> Measurement:
    timings = Timings(
        preprocess=None,
        queue=None,
        time_to_first_token=last,
        time_to_last_token=last,
        total=last,
        time_per_output_token=per_token,
    )
    generation = Generation(
        text="",
        parsed=None,
        token_ids=None,
        logprobs=None,
        finish_reason=FinishReason.STOP,
        stop_text=None,
        stop_token_id=None,
        usage=Usage(1, 1, None),
        timings=timings,
        network=None,
        request_id="",
        model="",
        seed=None,
        speculation=None,
    )
    return Measurement("?", generation, client_total)


def test_p50_is_the_5th_and_p90_the_9th_of_ten_values() -> None:
    values = [0.7, 0.1, 1.0, 0.3, 0.9, 0.5, 0.2, 0.8, 0.4, 0.6]
    assert percentile(values, 0.5) == 0.5
    assert percentile(values, 0.9) == 0.9


def test_there_is_no_percentile_without_measured_values() -> None:
    assert percentile([], 0.5) is None
    figures = percentiles([measured(0.2), measured(None), measured(0.3, per_token=0.01)])
    assert figures["time_to_last_token"] == (0.2, 0.3)
    assert figures["time_per_output_token"] == (0.01, 0.01)


def test_an_answer_at_the_threshold_is_within_it() -> None:
    assert within_threshold([0.4, 0.401, 0.1, None]) == 2


def test_the_questions_equal_those_of_the_reference() -> None:
    assert " / ".join(QUESTIONS) == (
        "What atoms are in water? / Which F1 team won in 2011? / What is 12 * 9? / "
        "Python function to print odd numbers between 1 and 10. Answer with code only. / "
        "What is the capital of California? / What's the tallest building in new york city? / "
        "What year did the European Union form? / How old was Geoff Hinton in 2022? / Where is Berkeley? / "
        "Are greyhounds or poodles faster?"
    )


@pytest.fixture(scope="module")
def report(synthetic_server: ServerProcess) -> dict[str, Any]:
    finished = run_doherty("bench", "--json", "--max-output-tokens", "7", "--target", synthetic_server.target)
    assert (finished.returncode, finished.stderr) == (0, "")
    printed: dict[str, Any] = json.loads(finished.stdout)
    return printed


def test_json_has_every_answer(report: dict[str, Any]) -> None:
    assert (report["model"], report["engine"], report["max_output_tokens"]) == ("synthetic", "synthetic", 7)
    assert tuple(answer["question"] for answer in report["answers"]) == QUESTIONS
    for answer in report["answers"]:
        assert answer["answer"]
        assert (answer["output_tokens"], answer["finish_reason"]) == (7, "length")
        assert answer["client_total"] >= answer["timings"]["time_to_last_token"] > 0


def test_the_percentiles_are_those_of_the_servers_time_to_last_token(report: dict[str, Any]) -> None:
    times = sorted(answer["timings"]["time_to_last_token"] for answer in report["answers"])
    assert report["percentiles"]["time_to_last_token"] == {"p50": times[4], "p90": times[8]}
    totals = sorted(answer["client_total"] for answer in report["answers"])
    assert report["percentiles"]["client_total"] == {"p50": totals[4], "p90": totals[8]}
    assert set(report["percentiles"]) == {
        "time_to_last_token",
        "client_total",
        "time_to_first_token",
        "time_per_output_token",
    }


def test_without_json_it_prints_answers_and_a_table(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("bench", "--max-output-tokens", "2", "--target", synthetic_server.target)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "answers cut at 2 tokens" in finished.stdout
    for question in QUESTIONS:
        assert f". {question}\n" in finished.stdout
    assert finished.stdout.count("ms to the last token  (2 tokens, ") == 10
    assert re.search(
        r"^Within the Doherty threshold of 400 ms: first token in \d+ of 10 answers, last token in \d+\.$",
        finished.stdout,
        re.MULTILINE,
    )
    assert "\x1b" not in finished.stdout


def test_without_a_maximum_answers_have_the_length_that_the_server_allows() -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=9,3") as server:
        finished = run_doherty("bench", "--json", "--target", server.target)
    report = json.loads(finished.stdout)
    assert report["max_output_tokens"] is None
    assert {answer["finish_reason"] for answer in report["answers"]} == {"stop"}
