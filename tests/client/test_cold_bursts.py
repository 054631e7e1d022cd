"""Bursts of calls on a client that is not connected yet, to a name with several servers."""

from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int32Value

from doherty._core._actions import Actions, Pause, Send
from doherty._core._balance import Target
from doherty._core._dispatch import Dispatch
from doherty._core._health import wait_ready
from doherty._core._settings import Settings

NAME = "servers.example:1"
WAITED, CLOSED = False, True
"""The possible results of a pause."""


def _dispatch(*targets: str) -> Dispatch:
    return Dispatch(Settings(targets, api_key=None, tls=None, insecure=True, timeout=None, retry=None, resume=True))


def _begin(dispatch: Dispatch) -> Actions[Target]:
    attempts = dispatch.begin_only_attempt(None, "timeout=")
    return dispatch.begin_attempt(attempts)


def _chosen(call: Actions[Target], result: object = None) -> Target:
    """Returns the target of a call that is no longer held back."""
    with pytest.raises(StopIteration) as end:
        call.send(result)
    target: Any = end.value.value
    assert isinstance(target, Target)
    return target


def test_the_second_call_waits_for_the_connections_and_the_others_for_it() -> None:
    dispatch = _dispatch(NAME)
    assert _chosen(_begin(dispatch)).in_flight == 1
    second, third = _begin(dispatch), _begin(dispatch)
    check = next(second)
    assert isinstance(check, Send)
    assert (check.rpc, check.target.name) == ("Check", NAME)
    assert isinstance(next(third), Pause)
    assert isinstance(second.send(None), Pause)
    assert isinstance(third.send(WAITED), Pause)
    target = _chosen(second, WAITED)
    assert _chosen(third, WAITED) is _chosen(_begin(dispatch)) is target
    assert target.in_flight == 4


def test_a_burst_continues_if_no_server_can_be_reached() -> None:
    dispatch = _dispatch(NAME)
    _chosen(_begin(dispatch))
    second = _begin(dispatch)
    next(second)
    second.send(OSError("nobody listens"))
    assert _chosen(second, WAITED).settled


def test_another_call_takes_over_from_one_that_is_cancelled() -> None:
    dispatch = _dispatch(NAME)
    first = _chosen(_begin(dispatch))
    second, third = _begin(dispatch), _begin(dispatch)
    next(second)
    next(third)
    second.close()
    assert first.in_flight == 2
    assert isinstance(third.send(WAITED), Send)


def test_a_closed_call_no_longer_waits() -> None:
    dispatch = _dispatch(NAME)
    _chosen(_begin(dispatch))
    second, third = _begin(dispatch), _begin(dispatch)
    next(second)
    next(third)
    assert not _chosen(third, CLOSED).settled


def test_calls_never_wait_for_a_list_of_addresses() -> None:
    dispatch = _dispatch("10.0.0.1:1", "10.0.0.2:1")
    assert [_chosen(_begin(dispatch)).in_flight for _ in range(4)] == [1, 1, 2, 2]


def test_no_call_waits_after_wait_ready() -> None:
    dispatch = _dispatch(NAME)
    waiting = wait_ready(dispatch, timeout=None)
    next(waiting)
    assert isinstance(waiting.send(Int32Value(value=1)), Pause)
    with pytest.raises(StopIteration):
        waiting.send(None)
    assert [_chosen(_begin(dispatch)).in_flight for _ in range(3)] == [1, 2, 3]


def test_another_call_takes_over_from_one_that_does_not_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    for module in ("_settling", "_balance"):
        monkeypatch.setattr(f"doherty._core.{module}.monotonic", lambda: now)
    dispatch = _dispatch(NAME)
    _chosen(_begin(dispatch))
    unread, waiting = _begin(dispatch), _begin(dispatch)
    assert isinstance(next(unread), Send)
    assert isinstance(next(waiting), Pause)
    now += 2
    assert isinstance(waiting.send(WAITED), Send)
    assert isinstance(waiting.send(None), Pause)
    target = _chosen(waiting, WAITED)
    unread.close()
    assert target.settled


def test_no_call_waits_a_second_after_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("doherty._core._balance.monotonic", lambda: now)
    dispatch = _dispatch(NAME)
    target = _chosen(_begin(dispatch))
    dispatch.targets.worked(target)
    now += 1.1
    dispatch.targets.worked(target)
    assert _chosen(_begin(dispatch)).in_flight == 2
