"""The decisions of a call, step by step and without a client."""

from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value

from doherty import ClientClosedError, DohertyError, Health, RetryPolicy, StreamError, UnavailableError
from doherty._core._actions import AskForTls, Pause, Receive, Send, next_action
from doherty._core._calls import generate
from doherty._core._dispatch import Dispatch
from doherty._core._health import check_health
from doherty._core._obstacle import TlsUse
from doherty._core._request import plan_request
from doherty._core._settings import Settings
from doherty._core._stream import StreamState
from doherty._core._unreachable import Address
from doherty.v1.generation_service_pb2 import GenerateResponse, StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest


class Lost(grpc.RpcError):
    """A broken connection."""

    def __init__(self, details: str = "lost") -> None:
        super().__init__()
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()


def _dispatch(*targets: str) -> Dispatch:
    policy = RetryPolicy(initial_backoff=0, max_backoff=0)
    return Dispatch(Settings(targets, api_key=None, tls=None, insecure=False, timeout=None, retry=policy, resume=True))


def _delta(text: str, token: int, *, start: bool = False) -> StreamGenerateResponse:
    message = StreamGenerateResponse()
    message.delta.text, message.delta.token_count = text, 1
    message.delta.token_ids.append(token)
    if start:
        message.start.request_id, message.start.model = "first", "m"
    return message


def _sent(action: Any) -> GenerateRequest:
    assert isinstance(action, Send)
    assert isinstance(action.request, GenerateRequest)
    return action.request


def test_a_failed_call_is_sent_to_another_server_after_a_pause() -> None:
    dispatch = _dispatch("a:1", "b:1")
    call = generate(dispatch, plan_request("Hi"))
    first = next(call)
    assert isinstance(first, Send)
    assert first.target.in_flight == 1
    assert call.send(Lost()) == Pause(0)
    assert first.target.in_flight == 0
    second = call.send(None)
    assert isinstance(second, Send)
    assert {first.target.name, second.target.name} == {"a:1", "b:1"}
    assert second.metadata[0] == ("doherty-attempts", "1")
    with pytest.raises(StopIteration) as end:
        call.send(GenerateResponse(text="fine"))
    assert end.value.value.text == "fine"
    assert [target.in_flight for target in dispatch.targets] == [0, 0]


def test_an_interrupted_call_no_longer_counts_as_running() -> None:
    dispatch = _dispatch("a:1")
    call = generate(dispatch, plan_request("Hi"))
    next(call)
    with pytest.raises(KeyboardInterrupt):
        call.throw(KeyboardInterrupt())
    assert [target.in_flight for target in dispatch.targets] == [0]


def test_a_server_that_ends_connections_is_probed_once_for_tls() -> None:
    dispatch = _dispatch("a:1")
    closed = "failed to connect to all addresses; last error: UNAVAILABLE: ipv6:%5B::1%5D:50051: Socket closed"
    call = generate(dispatch, plan_request("Hi"))
    next(call)
    assert call.send(Lost(closed)) == AskForTls(Address("::1", 50051), 1.0)
    assert isinstance(call.send(TlsUse.NONE), Pause)
    next(call)
    assert isinstance(call.send(Lost(closed)), Pause)
    next(call)
    with pytest.raises(StopIteration):
        call.send(GenerateResponse(text="fine"))
    other = generate(dispatch, plan_request("Hi"))
    next(other)
    assert isinstance(other.send(Lost(closed)), AskForTls)
    with pytest.raises(UnavailableError, match="speaks TLS") as raised:
        other.send(TlsUse.ENCRYPTION)
    assert raised.value.reason == "TLS_REQUIRED"


def test_targets_are_asked_for_their_health_until_one_serves() -> None:
    call = check_health(_dispatch("a:1", "b:1", "c:1"), timeout=3)
    assert isinstance(next(call), Send)
    second = call.send(Int32Value(value=2))
    assert isinstance(second, Send)
    assert second.target.name == "b:1"
    with pytest.raises(StopIteration) as end:
        call.send(Int32Value(value=1))
    assert end.value.value is Health.SERVING


def test_a_stream_requests_the_missing_part() -> None:
    state = StreamState(_dispatch("a:1", "b:1"), plan_request("Hi"))
    actions = state.actions()
    assert not _sent(next_action(actions, None)).HasField("continue_from")
    assert isinstance(next_action(actions, None), Receive)
    state.feed(_delta("one", 1, start=True))
    state.feed(_delta(" two", 2))
    assert isinstance(next_action(actions, Lost()), Pause)
    request = _sent(next_action(actions, None))
    assert (list(request.continue_from.token_ids), request.request_id, request.model) == ([1, 2], "first", "m")
    assert isinstance(next_action(actions, None), Receive)
    state.feed(_delta(" three", 3, start=True))
    last = StreamGenerateResponse()
    last.summary.usage.output_tokens = 3
    state.feed(last)
    assert next_action(actions, Lost()) is None  # an error after the summary is ignored
    assert (state.ended, state.failure, state.resumed) == (True, None, 1)
    assert state.generation().text == "one two three"


def test_a_stream_that_is_closed_during_a_pause_is_not_sent_again() -> None:
    dispatch = _dispatch("a:1", "b:1")
    state = StreamState(dispatch, plan_request("Hi"))
    actions = state.actions()
    next_action(actions, None)
    next_action(actions, None)
    assert isinstance(next_action(actions, Lost()), Pause)
    assert state.close()
    assert next_action(actions, None) is None
    assert isinstance(state.failure, StreamError)


def test_a_stream_that_cannot_start_no_longer_counts_as_running() -> None:
    dispatch = _dispatch("a:1")
    state = StreamState(dispatch, plan_request("Hi"))
    actions = state.actions()
    next_action(actions, None)
    dispatch.shared.disconnected = True
    assert next_action(actions, ValueError("Cannot invoke RPC on closed channel!")) is None
    assert isinstance(state.failure, ClientClosedError)
    assert [target.in_flight for target in dispatch.targets] == [0]


def test_an_error_that_does_not_come_from_the_server_is_raised_unchanged() -> None:
    call = generate(_dispatch("a:1"), plan_request("Hi"))
    next(call)
    with pytest.raises(ValueError, match="wrong") as raised:
        call.send(ValueError("wrong"))
    assert not isinstance(raised.value, DohertyError)
