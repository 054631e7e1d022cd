"""`doherty serve --engine trtllm`: missing requirements, and workers that die."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.gpu import (
    A100,
    ENGINES,
    GIB,
    H100,
    L4,
    calibration_set,
    clean_environment,
    environment,
    options,
    start_trtllm,
    write_model,
)
from support.hugging_face import Folder
from support.wire import connect, failure_of

LONG: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 4}}
SMALL = {**H100, "name": "NVIDIA H100 MIG 1g.10gb", "memory": 10 * GIB}


@pytest.fixture
def model(tmp_path: Path) -> Folder:
    return write_model(tmp_path / "model")


def refused(model: Path, *values: str, variables: dict[str, str] | None = None, **scenario: Any) -> str:
    """Returns the error message of a server that cannot start."""
    assignments = (f"engine_cache={model.parent / 'engines'}", *values)
    command = [sys.executable, "-m", "doherty_service", "--engine", "trtllm", "--listen", "127.0.0.1:0"]
    settings = environment(**scenario) if variables is None else variables
    done = subprocess.run(
        [*command, "--model", str(model), *options(*assignments)],
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        check=False,
    )
    message = [line for line in done.stderr.splitlines() if not line.startswith(("{", "[transformers]"))]
    assert done.returncode == 2, done.stderr
    assert len(message) == 1, done.stderr
    assert message[0].endswith(".")
    return message[0]


def broken_engine(model: Path, texts: str) -> str:
    """Builds an engine, breaks it, and returns the name of its folder."""
    with start_trtllm(model, "profile=fast", texts):
        pass
    (folder,) = [path for path in (model.parent / "engines").iterdir() if path.is_dir()]
    (folder / "rank0.engine").write_bytes(b"half")
    return folder.name


def test_a_missing_package_is_named(model: Folder) -> None:
    message = refused(model.path, variables={})
    assert message == "TensorRT-LLM is not installed; run in NVIDIA's image nvcr.io/nvidia/tensorrt-llm/release:1.2.1."


def test_a_missing_driver_is_named(model: Folder) -> None:
    assert "docker run --gpus all" in refused(model.path, driver=False)


def test_a_missing_gpu_is_named(model: Folder) -> None:
    assert "There is no GPU" in refused(model.path, cards=[])


def test_a_gpu_with_too_little_memory_is_refused(model: Folder) -> None:
    message = refused(model.path, cards=[SMALL])
    assert "NVIDIA H100 MIG 1g.10gb has 10.0 GiB" in message
    assert "use a larger card" in message


def test_a_gpu_without_fp8_is_refused(model: Folder) -> None:
    assert "NVIDIA A100-SXM4-80GB is older" in refused(model.path, cards=[A100])


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    assert "There is no model folder" in refused(tmp_path / "nowhere")


def test_a_broken_engine_is_kept(model: Folder) -> None:
    texts = f"calib_dataset={calibration_set(model.path.parent / 'texts')}"
    name = broken_engine(model.path, texts)
    message = refused(model.path, "profile=fast", texts)
    assert f"{name} is damaged (rank0.engine is not " in message
    assert "doherty engine prepare" in message
    assert (model.path.parent / "engines" / name / "rank0.engine").read_bytes() == b"half"


def test_contradictory_options_are_refused(model: Folder) -> None:
    assert "has no lookahead" in refused(model.path, "profile=interactive", "lookahead=8,6,8")


def test_an_older_gpu_serves_without_fp8(model: Folder) -> None:
    with start_trtllm(model.path, "profile=slow", cards=[A100]) as server, connect(server.target) as caller:
        assert caller.generate(**SHORT).summary.usage.output_tokens > 0
    with start_trtllm(model.path, "profile=interactive", cards=[L4]) as server, connect(server.target) as caller:
        assert caller.model.profile == "interactive"


@pytest.mark.parametrize("backend", ENGINES)
@pytest.mark.parametrize("fault", [{"die_after_steps": 200}, {"hang_after_steps": 200}], ids=["dies", "hangs"])
def test_a_worker_that_dies_is_replaced(model: Folder, backend: str, fault: dict[str, int]) -> None:
    """In TensorRT-LLM 1.2.x, its requests would wait forever."""
    start: Callable[..., Any] = start_trtllm
    flags = ("--step-timeout", "2", "--canary-interval", "0")
    with (
        start(model.path, *ENGINES[backend], flags=flags, tokens_per_second=50, **fault) as server,
        ThreadPoolExecutor(4) as pool,
        connect(server.target) as caller,
    ):
        running = [pool.submit(failure_of, lambda: caller.stream(**LONG)) for _ in range(4)]
        for call in running:
            assert (call.result().code, call.result().reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
        server.wait_for("engine_failed")
        server.wait_for("loaded")
        caller.wait_until(lambda now: not now.running and now.slots > 0)
        assert caller.generate(**SHORT).summary.usage.output_tokens > 0
        assert server.stop() == 0


def test_a_canary_uses_no_field_that_the_profile_refuses(model: Folder) -> None:
    texts = f"calib_dataset={calibration_set(model.path.parent / 'texts')}"
    flags = ("--canary-interval", "0.1")
    with start_trtllm(model.path, "profile=fast", texts, flags=flags) as server, connect(server.target) as caller:
        for _ in range(3):
            caller.wait_until(lambda now: now.running == 1)
            caller.wait_until(lambda now: not now.running)
        assert caller.generate(prompt="Hello").summary.speculation.steps > 0
        assert server.stop() == 0
        assert [line for line in (*server.log, *server.read()) if line["event"] == "engine_failed"] == []


def test_the_log_contains_the_queue_time_of_the_engine(model: Folder) -> None:
    with start_trtllm(model.path, "profile=interactive", tokens_per_second=100) as server:
        with connect(server.target) as caller:
            caller.generate(**SHORT, request_id="timed")
        line = server.wait_for("request", request_id="timed")
        assert isinstance(line["engine_time_to_first_token_ms"], float)
        assert isinstance(line["time_to_first_token_ms"], float)
        assert 0 < line["engine_time_to_first_token_ms"] <= line["time_to_first_token_ms"]
