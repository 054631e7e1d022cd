from collections.abc import Iterator

import pytest

from doherty import Client, Message
from support.command import DOHERTY, run_doherty
from support.server import ServerProcess, start_server
from support.terminal import Terminal, on_a_terminal


@pytest.fixture
def slow_server() -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server:
        yield server


def chat_with(server: ServerProcess, *flags: str) -> tuple[str, ...]:
    return (*DOHERTY, "chat", *flags, "--target", server.target)


def ask(terminal: Terminal, question: str) -> None:
    terminal.type(question + "\n")
    terminal.read_until(question + "\n")


def test_piped_it_remembers_the_conversation(synthetic_server: ServerProcess) -> None:
    target = synthetic_server.target
    finished = run_doherty("chat", "--system", "Be brief.", "--target", target, text="Hello.\n\nAnd you?\n:q\nNo.\n")
    with Client(target) as client:
        first = client.generate("Hello.", system="Be brief.").text
        turns = [Message("user", "Hello."), Message("assistant", first), Message("user", "And you?")]
        second = client.generate(turns, system="Be brief.").text
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"{first}\n{second}\n"


def test_piped_a_call_that_fails_ends_it(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("chat", "--target", synthetic_server.target, text="many words " * 10_000 + "\nHello.\n")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert "INVALID_ARGUMENT" in finished.stderr


def test_ctrl_c_stops_the_answer_which_stays_in_the_conversation(slow_server: ServerProcess) -> None:
    with on_a_terminal(*chat_with(slow_server)) as terminal:
        terminal.read_until("> ")
        ask(terminal, "Tell me a story.")
        begun = terminal.read_until(" ") + terminal.read_until(" ")
        terminal.type("\x03")
        rest = terminal.read_until("\nstopped\n> ")
        slow_server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")
        # The terminal shows the key as ^C.
        held = (begun + rest).removesuffix("\nstopped\n> ").replace("^C", "")
        ask(terminal, "Go on.")
        terminal.read_until(" ")
        terminal.type("\x03")
        terminal.read_until("\nstopped\n> ")
        terminal.type(":q\n")
        assert terminal.wait() == 0
    with Client(slow_server.target) as client:
        expected = client.count_tokens(
            [Message("user", "Tell me a story."), Message("assistant", held), Message("user", "Go on.")]
        )
    assert slow_server.wait_for("request", rpc="StreamGenerate", prompt_tokens=expected)


@pytest.mark.parametrize("leave", [":q\n", "\x03", "\x04"])
def test_at_the_prompt_it_is_left(synthetic_server: ServerProcess, leave: str) -> None:
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        assert "synthetic at " in terminal.read_until("> ")
        ask(terminal, "Hello.")
        assert "170 tokens, first after " in terminal.read_until("tokens/s, stop\n> ")
        terminal.press(leave)
        assert terminal.wait() == 0


def test_on_a_terminal_a_call_that_fails_leaves_the_conversation_as_it_is() -> None:
    with (
        start_server("--engine", "synthetic", "-o", "fail_after_tokens=5") as server,
        on_a_terminal(*chat_with(server)) as terminal,
    ):
        terminal.read_until("> ")
        ask(terminal, "Hello.")
        assert "\ndoherty: " in terminal.read_until("\n> ")
        ask(terminal, "And now?")
        assert "\ndoherty: " in terminal.read_until("\n> ")
        terminal.type(":q\n")
        assert terminal.wait() == 0
