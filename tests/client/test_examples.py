"""Runs each of the examples."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from doherty import Client
from support.command import SECONDS
from support.server import ServerProcess, start_server

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = "Why is the sky blue?"

PRINTS = {
    "generate.py": r"(?s).+\n\[40 tokens; server \d+ ms, network \d+\.\d ms\]\n.+\n\[40 tokens; server .+\]\n",
    "stream.py": r"(?s).+\n\[the first token after \d+ ms\]\n\[stopped after:  ?\S+ \S+ \S+\]\n",
    "async_streams.py": (
        r"(?s).+\n40 tokens, the first after \d+ ms\nthe other one was stopped after:  ?\S+ \S+ \S+\n"
    ),
    "errors.py": (
        r"mend the request: sampling\.temperature: must be from 0 to 2\n"
        r"use what is there, synthetic: the model 'no-such-model' is not served .+\n"
        r"allow more time, .+ did not finish within 0\.001 s \(the timeout of the call\).+\n"
        r"mend the program: The prompt has no messages\.\n"
        r"come back in some seconds: localhost:1 was not reached: .+ \(after \d+ attempts in .+ s\)\n"
    ),
    "many_requests.py": r"500 of 500 answered: \d+ tokens in \d+\.\d\d s\n",
    "structured_output.py": (
        r"(good|mixed|bad), [1-5] of 5, would return: (True|False), waiter: (None|'.*'|\".*\")\n"
        r"(- ['\"].*['\"]: (good|mixed|bad)\n){0,3}"
    ),
    "summarize.py": r"(?s).*\S.*\n",
    "chat.py": r"(?s)> .+\n> .+\n> ",
    "thread_pool.py": r"(?s)ocean: .+\nriver: .+\nmountain: .+\nglacier: .+\n",
    "fail_over.py": (
        r"(?s).+ <killed> .+\n127\.0\.0\.1:\d+ was killed; the answer went on 1 time at the other one\n"
        r"the same as undisturbed: True\n"
    ),
}
TYPED = {"summarize.py": f"{PROMPT} Nobody knows.", "chat.py": f"{PROMPT}\nAnd the sea?\n"}
OF_THEIR_OWN = {"demo.py", "fastapi_app.py"}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Runs a server that is slow enough for answers to be interrupted."""
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=100") as started:
        yield started


def environment(target: str) -> dict[str, str]:
    return os.environ | {"DOHERTY_TARGET": target}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == PRINTS.keys() | OF_THEIR_OWN


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_what_its_description_says(name: str, server: ServerProcess) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    finished = subprocess.run(
        command,
        input=TYPED.get(name, ""),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=environment(server.target),
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.fullmatch(PRINTS[name], finished.stdout), finished.stdout
    with Client(server.target) as client:
        while client.latency().running:  # the server may learn of a cancellation after the end of the example
            pass


@contextmanager
def run_app(target: str) -> Iterator[HTTPConnection]:
    """Serves the FastAPI example on a free port."""
    command = [sys.executable, str(EXAMPLES / "fastapi_app.py"), "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(target))
    try:
        for line in process.stderr or ():
            if address := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                connection = HTTPConnection("127.0.0.1", int(address[1]), timeout=20)
                yield connection
                connection.close()
                break
        else:
            pytest.fail("the app did not start")
        process.terminate()
        log = process.communicate(timeout=20)[1]
        assert "Traceback" not in log, log
    finally:
        process.kill()
        process.communicate()


def test_the_app_streams_an_answer_to_a_browser(server: ServerProcess) -> None:
    with run_app(server.target) as connection:
        connection.request("GET", "/")
        assert b"EventSource" in connection.getresponse().read()
        connection.request("GET", "/answers?prompt=Why+is+the+sky+blue%3F")
        response = connection.getresponse()
        assert response.headers["content-type"].startswith("text/event-stream")
        *texts, end = response.read().decode().strip().split("\n\n")
    assert len(texts) > 10
    with Client(server.target) as client:
        answer = client.generate(PROMPT)
    assert "".join(json.loads(text.removeprefix("data: ")) for text in texts) == answer.text
    assert end == f'event: end\ndata: "{answer.finish_reason}"'


def test_the_app_reports_a_full_server_and_cancels_when_the_browser_leaves() -> None:
    one_at_a_time = ("--max-queued-requests", "0", "-o", "slots=1", "-o", "tokens_per_second=10")
    with start_server("--engine", "synthetic", *one_at_a_time) as server, run_app(server.target) as browser:
        browser.request("GET", "/answers?prompt=Do+not+answer+all+of+this.")
        response = browser.getresponse()
        assert response.readline().startswith(b"data: ")
        other = HTTPConnection(browser.host, browser.port, timeout=20)
        other.request("GET", "/answers?prompt=Hello")
        refusal = other.getresponse()
        assert refusal.status == 429
        assert int(refusal.headers["retry-after"]) >= 1
        assert "QUEUE_FULL" in server.wait_for("request", rpc="StreamGenerate", code="RESOURCE_EXHAUSTED").values()
        other.close()
        response.close()
        browser.close()
        server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")


def test_the_app_reports_that_the_server_cannot_be_reached() -> None:
    with run_app("localhost:1") as connection:
        connection.request("GET", "/answers?prompt=Hello")
        response = connection.getresponse()
        assert response.status == 503
        assert "localhost:1 was not reached" in json.loads(response.read())["detail"]
