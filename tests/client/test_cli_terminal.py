"""Text from a server cannot send control sequences to the terminal of a caller."""

import json
from collections.abc import Iterator

import grpc
import pytest

from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.command import DOHERTY, run_doherty
from support.server import ServerProcess
from support.serving import Serving, delta, serve, summary
from support.terminal import on_a_terminal

HOSTILE = "safe\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202eevil\u2066\u2029 words"
"""Sets a title, clears the screen, turns text red with a C1 control character, and reverses the text direction."""

DRIVING = ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\x7f", "\u202e", "\u2066")


def answer(request: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
    if request.prompt == "fail":
        context.abort(grpc.StatusCode.INTERNAL, HOSTILE * 50)
    yield delta(HOSTILE, 1, start=True)
    yield summary()


@pytest.fixture(scope="module")
def hostile() -> Iterator[Serving]:
    with serve(answer, reported_model=HOSTILE) as serving:
        yield serving


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "tell"),
        ("generate", "fail"),
        ("generate", "--json", "tell"),
        ("model",),
        ("model", "--json"),
        ("chat",),
    ],
    ids=" ".join,
)
def test_control_sequences_do_not_reach_the_terminal(hostile: Serving, arguments: tuple[str, ...]) -> None:
    command = (*DOHERTY, *arguments, "--target", hostile.target, "--timeout", "20")
    with on_a_terminal(*command, rows=50, NO_COLOR="1") as terminal:
        if arguments == ("chat",):
            terminal.read_until("> ")
            terminal.type("tell\n")
            terminal.read_until("> ")
            terminal.type("\x04")
        terminal.wait()
    assert "safe" in terminal.output
    assert not [sequence for sequence in DRIVING if sequence in terminal.output]
    assert len(terminal.output) < 20_000


def test_json_contains_the_unchanged_text(hostile: Serving) -> None:
    finished = run_doherty("generate", "--json", "tell", "--target", hostile.target)
    assert json.loads(finished.stdout)["text"] == HOSTILE
    assert not [sequence for sequence in DRIVING if sequence in finished.stdout]


def test_an_error_has_one_line(hostile: Serving) -> None:
    finished = run_doherty("generate", "fail", "--target", hostile.target)
    assert len(finished.stderr.splitlines()) == 1
    assert not [sequence for sequence in DRIVING if sequence in finished.stderr]


@pytest.mark.parametrize(("term", "no_color"), [("xterm", "1"), ("dumb", "")])
@pytest.mark.parametrize("arguments", [("generate", "Hi"), ("model",), ("generate", "fail"), ("latency", "--nonsense")])
def test_a_plain_terminal_gets_no_escape_sequences(
    hostile: Serving, arguments: tuple[str, ...], term: str, no_color: str
) -> None:
    with on_a_terminal(*DOHERTY, *arguments, "--target", hostile.target, TERM=term, NO_COLOR=no_color) as terminal:
        terminal.wait()
    assert terminal.output.strip()
    assert "\x1b" not in terminal.output


def test_a_dumb_terminal_gets_a_chat_and_a_watch_without_escape_sequences(synthetic_server: ServerProcess) -> None:
    with on_a_terminal(*DOHERTY, "chat", "--target", synthetic_server.target) as terminal:
        terminal.read_until("> ")
        terminal.type("Hello.\n")
        terminal.read_until(" tokens/s, stop\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "\x1b" not in terminal.output
    with on_a_terminal(*DOHERTY, "latency", "--watch", "0.1", "--target", synthetic_server.target) as terminal:
        terminal.read_until("answers, ms at p50/p90/p99")
        terminal.read_until("\n")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "\x1b" not in terminal.output
