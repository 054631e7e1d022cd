"""The log: a request can be followed, and many requests do not flood the log."""

import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest
from doherty_service._version import server_version
from support.multiplex import start
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect, failure_of, request

SHORT: dict[str, Any] = {"prompt": "Name three colors.", "stopping": {"max_output_tokens": 12, "ignore_eos": True}}
LIBRARY = """
import logging
from doherty_service.telemetry import set_up_logging

set_up_logging("info")
handler = logging.StreamHandler()
form = "(%(processName)s pid=%(process)d %(threadName)s) [%(filename)s:%(lineno)d] %(message)s"
handler.setFormatter(logging.Formatter(form))
library = logging.getLogger("library")
library.addHandler(handler)
library.propagate = False
library.warning("began")
"""
"""vLLM 0.33 formats its own lines like this."""
LONG: dict[str, Any] = {"prompt": "Count.", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
MANY = 400


def lines_of(server: ServerProcess) -> list[dict[str, object]]:
    """Returns the whole log of a server that has ended."""
    return [*server.log, *server.read()]


def test_a_log_line_has_server_attempt_and_continued_tokens() -> None:
    with start_server("--engine", "synthetic", "--log-level", "debug") as server, connect(server.target) as caller:
        ids = list(caller.generate(**SHORT, output={"token_ids": True}).token_ids)
        text = caller.generate(**SHORT).text
        sent_before = (("doherty-attempts", "2"),)
        held = {"ids": {"token_ids": ids[:5]}, "text": {"text": text[: len(text) // 2]}}
        continued: dict[str, int] = {}
        for label, part in held.items():
            sent = request(**SHORT, continue_from=part, request_id=label, output={"token_ids": True})
            reply = caller.stub.Generate(sent, metadata=sent_before, timeout=SECONDS)
            continued[label] = reply.summary.usage.output_tokens - len(reply.token_ids)
        for nonsense in ("many", "-1", "9" * 20):
            sent = request(**SHORT, request_id="nonsense")
            caller.stub.Generate(sent, metadata=(("doherty-attempts", nonsense),), timeout=SECONDS)
        starts = [start(1, attempts=1, **SHORT, request_id="lane")]
        list(caller.stub.MultiplexGenerate(iter([MultiplexGenerateRequest(starts=starts)]), timeout=SECONDS))
        assert server.stop() == 0
    lines = [line for line in lines_of(server) if line["event"] != "text"]
    port = server.target.rpartition(":")[2]
    after = lines[[line["event"] for line in lines].index("listening") :]
    assert {line["instance"] for line in after} == {f"{socket.gethostname()}:{port}"}
    assert {line["version"] for line in lines} == {server_version()}
    for event in ("received", "request"):
        logged = {str(line["request_id"]): line for line in lines if line["event"] == event and "request_id" in line}
        attempts = {label: line["attempt"] for label, line in logged.items()}
        assert attempts.items() >= {"ids": 3, "text": 3, "nonsense": 1, "lane": 2}.items()
        assert logged["ids"]["continued_tokens"] == continued["ids"] == 5
        assert "continued_tokens" not in logged["nonsense"]
    assert logged["text"]["continued_tokens"] == continued["text"] > 0  # known when the engine has read the text


def test_a_dead_engine_is_logged_with_one_stack_for_all_requests() -> None:
    options = ("-o", "slots=16", "-o", "tokens_per_second=50", "-o", "die_after_steps=250")
    with (
        start_server("--engine", "synthetic", *options) as server,
        connect(server.target) as caller,
        ThreadPoolExecutor(16) as pool,
    ):
        running = [pool.submit(failure_of, lambda: caller.stream(**LONG)) for _ in range(16)]
        assert {call.result().reason for call in running} == {"ENGINE_FAILED"}
        server.wait_for("engine_failed")
        assert server.stop() == 0
    lines = lines_of(server)
    assert Counter(line["event"] for line in lines if "exception" in line) == {"error": 1}
    assert Counter(line.get("reason") for line in lines if line["event"] == "request") == {"ENGINE_FAILED": 16, None: 1}


def test_many_refusals_are_summarized() -> None:
    flags = ("-o", "slots=1", "-o", "tokens_per_second=200", "--max-queued-requests", "0")
    with start_server("--engine", "synthetic", *flags) as server, connect(server.target) as caller:
        held = caller.stub.StreamGenerate(request(**LONG), timeout=SECONDS)
        next(held)
        starts = [start(number, **SHORT) for number in range(1, MANY + 1)]
        replies = caller.stub.MultiplexGenerate(iter([MultiplexGenerateRequest(starts=starts)]), timeout=SECONDS)
        assert sum(len(reply.parts) for reply in replies) == MANY
        held.cancel()
        assert server.stop() == 0
    lines = lines_of(server)
    alone = [line for line in lines if line["event"] == "request" and line.get("reason") == "QUEUE_FULL"]
    sums = [line for line in lines if line["event"] == "refusals"]
    assert {(line["rpc"], line["reason"]) for line in sums} == {("MultiplexGenerate", "QUEUE_FULL")}
    assert len(alone) + sum(int(str(line["count"])) for line in sums) == MANY
    assert len(alone) < MANY / 2


def test_a_library_with_its_own_handler_can_log_process_thread_and_line() -> None:
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("(MainProcess pid=")
    assert line.endswith("MainThread) [<string>:12] began")
