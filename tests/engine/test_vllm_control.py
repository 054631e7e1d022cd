"""Early ends of requests and of the vLLM engine, with a fake of vLLM."""

import asyncio
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from doherty_engine import (
    Choices,
    Conversation,
    EngineError,
    EngineFailedError,
    FinishReason,
    InvalidInputError,
    StepOutput,
    Stopping,
    create_engine,
)
from support.engines import EngineLab
from support.hugging_face import user, write_llama3
from support.vllm import FAKE_PATH, VllmLab, fake_vllm, until, vllm_lab, vllm_request

ENDLESS = Stopping(max_output_tokens=8000, ignore_eos=True)


async def running_request(vllm: VllmLab, stopping: Stopping = ENDLESS) -> tuple[str, object]:
    request = vllm_request(stopping=stopping)
    handle = vllm.lab.submit(request)
    await vllm.lab.until(lambda: bool(vllm.lab.outputs(request.key)))
    return request.key, handle


@pytest.mark.parametrize("logprobs", [None, 2])
async def test_an_abort_is_the_next_output_and_reaches_vllm(tmp_path: Path, logprobs: int | None) -> None:
    async with vllm_lab(tmp_path) as vllm:
        request = vllm_request(stopping=ENDLESS, top_logprobs=logprobs)
        handle = vllm.lab.submit(request)
        await vllm.lab.until(lambda: bool(vllm.lab.outputs(request.key)))
        handle.abort()
        given = len(vllm.lab.outputs(request.key))
        outcome = await vllm.lab.outcome(request.key)
        assert len(outcome.outputs) == given + 1
        assert (outcome.outputs[-1].text, outcome.finish.reason) == ("", FinishReason.ABORTED)
        await vllm.until_dropped(request.key)
        handle.abort()
        assert (await vllm.ask()).finish.reason is FinishReason.STOP


async def test_a_request_can_be_aborted_before_vllm_has_it(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path, max_model_len="8000") as vllm:
        long = vllm_request(input=Conversation((user("Hello " * 1500),)))  # is tokenized in a thread
        short = vllm_request()
        for request in (long, short):
            vllm.lab.submit(request).abort()
        for request in (long, short):
            outcome = await vllm.lab.outcome(request.key)
            assert [output.finish and output.finish.reason for output in outcome.outputs] == [FinishReason.ABORTED]
        assert (await vllm.ask()).finish.reason is FinishReason.STOP


async def test_a_time_limit_ends_an_answer_with_its_part(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        request = vllm_request(stopping=Stopping(8000, ignore_eos=True, ends_at=time.monotonic() + 2))
        outcome = await vllm.lab.ask(request)
        assert outcome.finish.reason is FinishReason.TIME_LIMIT
        assert outcome.finish.output_tokens == outcome.token_count
        await vllm.until_dropped(request.key)
        over = await vllm.ask(stopping=Stopping(ends_at=time.monotonic()))
        assert (over.text, over.finish.reason) == ("", FinishReason.TIME_LIMIT)
        assert over.started.prompt_tokens == outcome.started.prompt_tokens


async def test_a_time_limit_works_while_vllm_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with vllm_lab(tmp_path) as vllm:
        monkeypatch.setattr(vllm.llm.engine_core, "pace", 3600.0)
        outcome = await vllm.ask(stopping=Stopping(ends_at=time.monotonic() + 0.05))
        assert (outcome.text, outcome.finish.reason) == ("", FinishReason.TIME_LIMIT)


async def test_the_death_of_vllm_ends_every_request_immediately(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        keys = [(await running_request(vllm))[0] for _ in range(3)]
        vllm.llm.kill()
        for key in keys:
            error = (await vllm.lab.outcome(key)).error
            assert isinstance(error, EngineFailedError)
            assert "EngineCore encountered an issue" in str(error)
        assert [len(step) for step in vllm.lab.steps if any(output.error for output in step)] == [3]
        health = vllm.lab.engine.health()
        assert not health.ok
        assert "its own log says why" in health.detail
        assert isinstance((await vllm.ask()).error, EngineFailedError)


async def test_the_death_of_vllm_is_noticed_without_requests(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        vllm.llm.kill()
        await until(lambda: not vllm.lab.engine.health().ok)


async def test_stopping_ends_running_requests_and_may_be_repeated(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        key, _ = await running_request(vllm)
        await vllm.lab.engine.stop()
        assert (await vllm.lab.outcome(key)).finish.reason is FinishReason.ABORTED
        assert vllm.llm.errored
        assert not vllm.lab.engine.health().ok
        await vllm.lab.engine.stop()
        assert isinstance((await vllm.ask()).error, EngineFailedError)
        with pytest.raises(EngineFailedError, match="has been stopped"):
            await vllm.lab.engine.count_tokens(Conversation((user("Hi"),)))


async def test_requests_that_wait_in_vllm_report_their_queue_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vllm_lab(tmp_path, slots="1") as vllm:
        monkeypatch.setattr(vllm.llm.engine_core, "pace", 0.05)
        assert vllm.lab.engine.info().slots == 1
        stopping = Stopping(max_output_tokens=10, ignore_eos=True)
        first, second = vllm_request(stopping=stopping), vllm_request(stopping=stopping)
        for request in (first, second):
            vllm.lab.submit(request)
        queues = [(await vllm.lab.outcome(request.key)).started.queue for request in (first, second)]
        assert queues[1] > queues[0]


@pytest.mark.parametrize("version", ["0.26.0", "0.33.0"])
async def test_vllms_client_errors_are_invalid_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("FAKE_VLLM_VERSION", version)
    async with vllm_lab(tmp_path) as vllm:
        error_type = sys.modules["vllm.exceptions"].VLLMValidationError
        for parameter, fields, field in (
            ("temperature", {}, "sampling.temperature"),
            ("thinking_token_budget", {}, "messages"),
            (None, {"constraint": Choices(("a",))}, "constraint.choices"),
        ):

            async def refuse(*_: object, parameter: str | None = parameter, **__: object) -> None:
                raise error_type("it is out of range", parameter=parameter)

            monkeypatch.setattr(vllm.llm, "add_request", refuse)
            error = (await vllm.ask(**fields)).error
            assert isinstance(error, InvalidInputError)
            assert error.field == field
            assert str(error).startswith("vLLM refuses it: it is out of range")
        assert vllm.lab.engine.health().ok


async def test_a_value_error_of_vllm_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with vllm_lab(tmp_path) as vllm:

        async def refuse(*_: object, **__: object) -> None:
            raise ValueError("no room")

        monkeypatch.setattr(vllm.llm, "add_request", refuse)
        error = (await vllm.ask()).error
        assert type(error) is EngineError
        assert str(error) == "vLLM refused a request: no room"


async def test_a_step_that_cannot_be_delivered_does_not_stop_the_delivery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fake_vllm():
        engine = create_engine("vllm", {"model": str(write_llama3(tmp_path).path)})
        lab, failures = EngineLab(engine), [RuntimeError("no reader")]

        def sink(outputs: Sequence[StepOutput]) -> None:
            if failures:
                raise failures.pop()
            lab.sink(outputs)

        await engine.start(sink)
        outcome = await lab.ask(vllm_request(stopping=Stopping(max_output_tokens=20, ignore_eos=True)))
        assert outcome.finish.output_tokens == 20
        await engine.stop()
    (record,) = caplog.records
    assert record.getMessage() == "the outputs of a step could not be delivered"
    assert record.exc_info is not None


async def test_a_failed_stop_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_VLLM_HAS_PROCESS", "1")
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(3600,))
    other.start()
    try:
        async with vllm_lab(tmp_path) as vllm:
            (process,) = [child for child in multiprocessing.active_children() if child.name == "EngineCore"]

            def fail() -> None:
                raise RuntimeError("CUDA error")

            monkeypatch.setattr(vllm.llm, "shutdown", fail)
            await vllm.lab.engine.stop()
            await ended(process)
        assert other.is_alive()  # a process that is not the engine's
        assert "could not be shut down" in caplog.text
    finally:
        other.kill()
        other.join()


async def ended(process: BaseProcess) -> None:
    """Waits for the end of a process that was killed."""
    await asyncio.to_thread(process.join, 30)
    assert not process.is_alive()


async def test_a_stop_that_hangs_and_is_given_up_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM_HAS_PROCESS", "1")
    hanging, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with vllm_lab(tmp_path) as vllm:
        (process,) = [child for child in multiprocessing.active_children() if child.name == "EngineCore"]

        def hang() -> None:
            loop.call_soon_threadsafe(hanging.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()

        monkeypatch.setattr(vllm.llm, "shutdown", hang)
        stopping = asyncio.create_task(vllm.lab.engine.stop())
        await hanging.wait()
        stopping.cancel()
        await asyncio.wait([stopping])
        await ended(process)
        goes_on.set()


def test_vllms_processes_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    code = """
import asyncio, multiprocessing, sys
from doherty_engine import create_engine
async def main():
    engine = create_engine("vllm", {"model": sys.argv[1]})
    await engine.start(lambda _: None)
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    await asyncio.Event().wait()
if __name__ == "__main__":
    asyncio.run(main())
"""
    program = tmp_path / "serve.py"
    program.write_text(code)
    command = [sys.executable, str(program), str(write_llama3(tmp_path / "model").path)]
    variables = os.environ | {"PYTHONPATH": FAKE_PATH, "FAKE_VLLM_HAS_PROCESS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) as server:
        assert server.stdout is not None
        (core,) = map(int, server.stdout.readline().split())
        descriptor = os.pidfd_open(core)
        try:
            server.send_signal(signal.SIGKILL)
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            assert waiting.poll(30_000), "the process still runs"
        finally:
            os.close(descriptor)
