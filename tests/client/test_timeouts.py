"""The timeouts for the progress of a stream, with both clients."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from doherty import AsyncClient, ClientClosedError, DeadlineExceededError
from doherty._sync._alarm import Alarm, Alarms
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.server import ServerProcess
from support.serving import Handler, answer, delta, serve
from support.twins import ENDLESS, Kind, open_twin

MESSAGES = {"first_token_timeout": [], "idle_timeout": [delta("a", 1, start=True), delta("b", 2)]}
"""The messages that arrive before the server falls silent."""


class Silence:
    """A server that falls silent until its caller leaves."""

    def __init__(self, *messages: StreamGenerateResponse) -> None:
        self._messages = messages
        self.gone = threading.Event()

    def __call__(self, _: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if not context.add_callback(self.gone.set):
            self.gone.set()  # the caller has left already
        yield from self._messages
        self.gone.wait(30)


@pytest.mark.parametrize("name", list(MESSAGES))
async def test_a_silent_server_is_left_when_the_timeout_ends(kind: Kind, name: str) -> None:
    silence = Silence(*MESSAGES[name])
    with serve(silence) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi", **{name: 0.3})
            with pytest.raises(DeadlineExceededError, match=rf"within 0\.3 s; allow more with {name}=") as raised:
                await stream.result()
            assert await asyncio.to_thread(silence.gone.wait, 10)
            assert raised.value.reason == name.upper()
            assert stream.stream.text == "".join(message.delta.text for message in MESSAGES[name])
            with pytest.raises(DeadlineExceededError):
                await stream.next()


@pytest.mark.parametrize("name", list(MESSAGES))
async def test_a_unary_call_has_the_timeouts_too(kind: Kind, name: str) -> None:
    silence = Silence(*MESSAGES[name])
    with serve(silence) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(TimeoutError, match=name):
                await twin.generate("Hi", **{name: 0.3})
            assert await asyncio.to_thread(silence.gone.wait, 10)


async def test_the_two_timeouts_are_independent(kind: Kind) -> None:
    def slow(pauses: tuple[float, float]) -> Handler:
        def handler(_: GenerateRequest, __: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
            for pause, message in zip(pauses, answer(), strict=True):
                time.sleep(pause)
                yield message

        return handler

    for pauses, limits in (((2.0, 0.0), {"idle_timeout": 1}), ((0.0, 2.0), {"first_token_timeout": 1})):
        with serve(slow(pauses)) as serving:
            async with open_twin(kind, serving.target) as twin:
                await twin("wait_ready")
                assert (await twin.stream("Hi", **limits).result()).text == "fine"


async def test_the_idle_timeout_may_be_shorter_than_the_first_one(kind: Kind) -> None:
    silence = Silence(*MESSAGES["idle_timeout"])
    with serve(silence) as serving:
        async with open_twin(kind, serving.target) as twin:
            with pytest.raises(DeadlineExceededError, match="idle_timeout"):
                await twin.stream("Hi", first_token_timeout=50, idle_timeout=0.3).result()
            assert await asyncio.to_thread(silence.gone.wait, 10)


@pytest.mark.parametrize("end", ["closed", "dropped", "lost"])
async def test_a_stream_has_one_timer_for_all_its_tokens(end: str, synthetic_server: ServerProcess) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    call_at = loop.call_at

    def watched(*args: Any, **context: Any) -> asyncio.TimerHandle:
        timers.append(call_at(*args, **context))
        return timers[-1]

    async with AsyncClient(synthetic_server.target) as client:
        stream = client.stream_generate("Hi", idle_timeout=1000, **ENDLESS)
        await anext(stream)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_at", watched)
            for _ in range(50):
                await anext(stream)
        [timer] = timers
        assert not timer.cancelled()
        if end == "closed":
            await stream.close()
        elif end == "dropped":
            del stream
            while not timer.cancelled():
                await client.latency()
        else:
            await client.close()
            with pytest.raises(ClientClosedError):
                await stream.result()
        assert timer.cancelled()


async def test_a_slow_reader_does_not_exceed_the_timeouts(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi", first_token_timeout=1, idle_timeout=1)
            time.sleep(1.1)  # noqa: ASYNC251 - nothing else runs
            await stream.next()
            time.sleep(1.1)  # noqa: ASYNC251
            assert (await stream.result()).text == "fine"


async def test_the_timeouts_run_while_a_stream_searches_for_a_server(kind: Kind) -> None:
    async with open_twin(kind, "127.0.0.1:1") as twin:
        with pytest.raises(TimeoutError, match="first_token_timeout"):
            await twin.stream("Hi", first_token_timeout=0.001).result()


@pytest.mark.parametrize("name", list(MESSAGES))
@pytest.mark.parametrize(("wrong", "error"), [("1", TypeError), (-1, ValueError)])
async def test_an_invalid_timeout_is_refused(kind: Kind, name: str, wrong: Any, error: type[Exception]) -> None:
    async with open_twin(kind, "127.0.0.1:1") as twin:
        with pytest.raises(error, match=f"{name}="):
            twin.stream("Hi", **{name: wrong})


def test_an_alarm_rings_once_and_in_time() -> None:
    class Bell:
        def __init__(self) -> None:
            self.rung = threading.Event()

        def ring(self) -> None:
            self.rung.set()

    bell, alarms = Bell(), Alarms()
    alarm = Alarm(bell.ring, alarms)
    for _ in range(3):
        with alarm.limit(30):
            pass
    with alarm.limit(0.05):
        assert bell.rung.wait(10)
    quiet = Alarm(Bell().ring, alarms)
    with quiet.limit(None):
        pass
    with quiet.limit(30):
        pass
    quiet.stop()
    for thread in threading.enumerate():
        if thread.name == "doherty-alarm":
            thread.join(10)
            assert not thread.is_alive()
