"""Callers that are refused, and come back when they were told."""

from support.crowd import Crowd
from support.server import start_server

FLAGS = ("--engine", "synthetic", "-o", "slots=4", "-o", "answer_tokens=40,50,60,70,80")


def question(number: int) -> dict[str, object]:
    return {"prompt": f"Question {number}?"}


async def test_nine_of_ten_who_come_back_when_told_are_admitted_under_a_steady_load() -> None:
    with start_server(*FLAGS, "--max-queued-requests", "4") as server:
        result = await Crowd(server.target, question).run(callers=16, seconds=6)
    assert result.refusals["QUEUE_FULL"] > 20
    assert result.kept + result.broken > 20
    assert result.kept_share >= 0.9
    assert not result.other


async def test_equal_requests_are_told_apart_where_those_that_come_back_say_so() -> None:
    with start_server(*FLAGS, "--max-queued-requests", "4") as server:
        result = await Crowd(server.target, lambda _: question(0), says_again=True).run(callers=16, seconds=6)
    assert result.kept + result.broken > 20
    assert result.kept_share >= 0.9


async def test_those_refused_for_their_deadline_are_admitted_too_when_they_come_back() -> None:
    with start_server(*FLAGS) as server:
        result = await Crowd(server.target, question, deadline=1.2).run(callers=24, seconds=8)
    assert result.refusals["DEADLINE_TOO_SHORT"] > 20
    assert result.kept_share >= 0.9
