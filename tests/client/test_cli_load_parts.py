"""The parts of the load generator that need no server."""

import asyncio
import json
import random
import statistics
import threading
import time
from array import array
from itertools import count, islice, pairwise
from pathlib import Path
from time import perf_counter

import pytest

from doherty import Message, Timings
from doherty.cli._load._loops import closed_loop, open_loop, poisson_arrivals
from doherty.cli._load._overhead import OverheadMeter
from doherty.cli._load._prompts import read_prompts
from doherty.cli._load._sample import Sample
from doherty.cli._load._statistics import Pair, mean, quantiles, ratio_of_medians
from doherty_service import telemetry as server


def test_quantiles_equal_those_of_the_server() -> None:
    numbers = random.Random(7)  # noqa: S311 - test data
    for size in range(1, 130):
        values = [numbers.random() for _ in range(size)]
        ours, theirs = quantiles(values), server.quantiles(sorted(values))
        assert (ours.p50, ours.p90, ours.p99) == (theirs.p50, theirs.p90, theirs.p99)
    assert quantiles([None]).p50 is None
    assert quantiles([None, 3.0]).p99 == 3.0
    assert mean([]) is None


def test_the_ratio_compares_medians() -> None:
    blocks = [[(1.0, 2.0), (2.0, 4.0)], [(3.0, 6.0)]]
    ratio = ratio_of_medians(blocks, seed=1)
    assert ratio is not None
    assert ratio.ratio == 2.0
    assert (ratio.low, ratio.high) == (2.0, 2.0)


def test_a_ratio_needs_pairs_and_an_interval_several_blocks() -> None:
    assert ratio_of_medians([], seed=1) is None
    assert ratio_of_medians([[(0.0, 1.0)]], seed=1) is None
    ratio = ratio_of_medians([[(1.0, 2.0), (1.0, 3.0)]], seed=1)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (None, None)


def test_nineteen_of_twenty_intervals_contain_the_ratio() -> None:
    numbers = random.Random(11)  # noqa: S311 - test data

    def block() -> list[Pair]:
        shared = numbers.gauss(0, 0.2)
        return [(numbers.lognormvariate(shared, 0.5), 1.3 * numbers.lognormvariate(shared, 0.5)) for _ in range(2)]

    held = 0
    for seed in range(40):
        ratio = ratio_of_medians([block() for _ in range(20)], seed)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low <= ratio.ratio <= ratio.high
        held += ratio.low <= 1.3 <= ratio.high
    assert 34 <= held <= 40


def test_arrivals_are_independent_and_repeatable() -> None:
    arrivals = list(islice(poisson_arrivals(50, seed=3), 20_000))
    gaps = [after - before for before, after in pairwise([0.0, *arrivals])]
    assert min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    # The standard deviation of an exponential distribution equals its mean.
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert list(islice(poisson_arrivals(50, seed=3), 100)) == arrivals[:100]
    assert list(islice(poisson_arrivals(50, seed=4), 100)) != arrivals[:100]


async def test_a_closed_loop_keeps_its_number_of_requests_running() -> None:
    numbers: list[int] = []
    under_way = most = 0

    async def ask(number: int, due: float | None) -> None:
        nonlocal under_way, most
        assert due is None
        numbers.append(number)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    await closed_loop(ask, range(5, 50), concurrency=4)
    assert sorted(numbers) == list(range(5, 50))
    assert most == 4


async def test_a_closed_loop_ends_in_time() -> None:
    async def ask(_number: int, _due: float | None) -> None:
        await asyncio.sleep(0)

    numbers = count()
    await closed_loop(ask, numbers, concurrency=2, ends_at=perf_counter() + 1)
    assert next(numbers) > 2


async def test_an_open_loop_waits_for_no_answer_and_measures_from_the_due_time() -> None:
    all_asked = asyncio.Event()
    dues: list[float] = []

    async def ask(number: int, due: float | None) -> None:
        assert due is not None
        dues.append(due)
        if number == 0:
            time.sleep(0.05)  # noqa: ASYNC251 - a generator that cannot keep up
        if len(dues) == 6:
            all_asked.set()
        await all_asked.wait()

    arrivals = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
    started = perf_counter()
    async with asyncio.timeout(30):
        await open_loop(ask, range(6), arrivals)
    assert [due - dues[0] for due in dues] == pytest.approx(arrivals)
    assert dues[0] >= started


async def test_an_open_loop_makes_no_request_that_is_due_after_its_end() -> None:
    dues: list[float] = []

    async def ask(number: int, due: float | None) -> None:
        assert due is not None
        assert number == len(dues)
        dues.append(due)

    ends_at = perf_counter() + 0.5
    await open_loop(ask, count(), (0.01 * number for number in count()), ends_at=ends_at)
    assert ends_at - 0.0101 < dues[-1] < ends_at


async def test_a_blocked_event_loop_increases_the_lag() -> None:
    threads = set(threading.enumerate())
    with OverheadMeter() as meter:
        time.sleep(0.3)  # noqa: ASYNC251 - what is measured
        await asyncio.sleep(0.05)
    overhead = meter.overhead(10, [0.5, None])
    assert overhead.loop_lag.p99 is not None
    assert 0.2 < overhead.loop_lag.p99 < overhead.wall
    assert overhead.per_time is not None
    assert overhead.mean_loop_lag is not None
    assert overhead.cpu_per_message is not None
    assert overhead.per_time == 0.5 + overhead.mean_loop_lag + overhead.cpu_per_message
    assert overhead.cpu_share < 1
    assert set(threading.enumerate()) <= threads


def test_without_messages_there_is_no_estimate() -> None:
    async def measure() -> None:
        with OverheadMeter() as meter:
            pass
        overhead = meter.overhead(0, [])
        assert (overhead.cpu_per_message, overhead.per_time) == (None, None)

    asyncio.run(measure())


def test_a_sample_contains_the_times_of_a_call() -> None:
    timings = Timings(
        preprocess=None,
        queue=0.0,
        time_to_first_token=0.1,
        time_to_last_token=0.5,
        total=0.5,
        time_per_output_token=None,
    )
    sample = Sample(
        number=0,
        due=1.0,
        late=0.25,
        total=1.0,
        time_to_first_token=0.5,
        time_to_last_token=0.9,
        gaps=array("d", [0.4]),
        output_tokens=5,
        server=timings,
    )
    assert sample.time_per_output_token == pytest.approx(0.1)
    assert sample.outside == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("prompts.txt", "One?\n\n  Two?  \n", ("One?", "Two?")),
        (
            "prompts.jsonl",
            '{"prompt": "One?", "id": 7}\n\n{"messages": [{"role": "user", "content": "Two?", "name": "x"}]}\n',
            ("One?", (Message("user", "Two?"),)),
        ),
    ],
)
def test_prompts_are_read_from_a_file(tmp_path: Path, name: str, text: str, expected: object) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_prompts(path) == expected


@pytest.mark.parametrize(
    "line",
    [
        "What?",
        "[]",
        "{}",
        '{"prompt": 7}',
        '{"prompt": "a", "messages": []}',
        '{"messages": []}',
        '{"messages": ["a"]}',
        '{"messages": [{"role": "nobody", "content": "a"}]}',
        json.dumps({"prompt": "\ud800"}),
    ],
)
def test_an_invalid_line_of_a_file_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "Well."}}\n{line}\n')
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2: "):
        read_prompts(path)


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(" \n")
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        read_prompts(path)
