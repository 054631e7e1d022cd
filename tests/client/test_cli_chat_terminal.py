"""What a person types and sees in `doherty chat`."""

import re
import signal
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from doherty import Client
from doherty.cli._history import ChatHistory
from support.chat import answer_on_screen, ask, chat_with
from support.ports import free_target
from support.server import ServerProcess, start_server
from support.serving import Serving
from support.terminal import on_a_terminal

pytestmark = pytest.mark.usefixtures("state")


@pytest.mark.parametrize("leave", [":q\n", "/quit\n", "\x03", "\x04"])
def test_the_chat_can_be_left_at_the_prompt(synthetic_server: ServerProcess, leave: str) -> None:
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        assert "synthetic at " in terminal.read_until("> ")
        ask(terminal, "Hello.")
        terminal.read_until(" tokens, first after ")
        assert re.fullmatch(r"\d+ ms, \d+ tokens/s, stop\n> ", terminal.read_until("> "))
        terminal.type(leave)
        assert terminal.wait() == 0


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_no_ctrl_c_is_lost_while_the_prompt_appears(synthetic_server: ServerProcess, term: str) -> None:
    for _ in range(2):
        with on_a_terminal(*chat_with(synthetic_server), TERM=term) as terminal:
            terminal.read_until(">")
            terminal.type("\x03")
            assert terminal.wait() == 0


def test_a_complete_answer_is_shown_as_markdown(synthetic_server: ServerProcess) -> None:
    rows, columns = 8, 60
    with on_a_terminal(*chat_with(synthetic_server), rows=rows, columns=columns, TERM="xterm") as terminal:
        terminal.see_prompt()
        terminal.type("Hello.\r")
        terminal.see("tokens/s, stop")
        terminal.see_prompt()
        terminal.type("\x04")
        assert terminal.wait() == 0
    with Client(synthetic_server.target) as client:
        expected = client.generate("Hello.").text
    assert "\x1b[?25l" in terminal.output
    assert len(expected) > rows * columns
    assert answer_on_screen(terminal, "Hello.").split() == expected.split()


@pytest.mark.parametrize("columns", [40, 80])
def test_after_ctrl_c_the_part_is_shown_once(slow_server: ServerProcess, columns: int) -> None:
    with Client(slow_server.target) as client:
        words = client.generate("Hello.", max_output_tokens=100).text.split()
    with on_a_terminal(*chat_with(slow_server), rows=24, columns=columns, TERM="xterm") as terminal:
        terminal.see_prompt()
        terminal.type("Hello.\r")
        terminal.see(f" {words[15]} ")
        terminal.type("\x03")
        terminal.see("stopped")
        slow_server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")
        terminal.see_prompt()
        terminal.type("/quit\r")
        assert terminal.wait() == 0
    shown = answer_on_screen(terminal, "Hello.").split()
    assert 15 < len(shown) < len(words)
    assert shown[:-1] == words[: len(shown) - 1]
    assert words[len(shown) - 1].startswith(shown[-1])  # a token may be a part of a word
    assert "^C" not in terminal.screen


def test_text_that_is_typed_during_an_answer_appears_at_the_next_prompt() -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=40", "-o", "tokens_per_second=40") as server:
        with on_a_terminal(*chat_with(server), columns=40, TERM="xterm") as terminal:
            terminal.see_prompt()
            terminal.type("Hello.\r")
            terminal.see_below("> Hello.")
            terminal.type("later")
            terminal.see("\n> later")
            terminal.type("\x03")
            assert terminal.wait() == 0
        with Client(server.target) as client:
            expected = client.generate("Hello.").text
    assert answer_on_screen(terminal, "Hello.").split() == expected.split()


def test_a_search_for_a_lost_server_is_shown() -> None:
    flags = ("--engine", "synthetic", "-o", "answer_tokens=80", "-o", "tokens_per_second=20", "--listen", free_target())
    with ExitStack() as stack:
        server = stack.enter_context(start_server(*flags))
        with Client(server.target) as client:
            expected = client.generate("Hello.").text
        terminal = stack.enter_context(on_a_terminal(*chat_with(server), columns=100, TERM="xterm"))
        terminal.see_prompt()
        terminal.type("Hello.\r")
        terminal.see(" ".join(expected.split()[1:3]))
        server.stop(signal.SIGKILL)
        terminal.see(f"{server.target} was lost; looking for a server that goes on")
        stack.enter_context(start_server(*flags))
        terminal.see("tokens/s, stop")
        terminal.see_prompt()
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert answer_on_screen(terminal, "Hello.").split() == expected.split()


def test_several_lines_are_one_question(recorder: Serving) -> None:
    recalled = "\x1b[A\r"
    typed = (
        ("\x1b[200~One,\ntwo.\n\x1b[201~\r", "One,\ntwo."),
        (recalled, "One,\ntwo."),
        ('"""\rThree,\rfour.\r"""\r', "Three,\nfour."),
        (recalled, "Three,\nfour."),
        ('"""/five"""\r', "/five"),
        ("\x1b[200~/six\nseven.\x1b[201~\r", "/six\nseven."),
    )
    with on_a_terminal(*chat_with(recorder), TERM="xterm") as terminal:
        terminal.see_prompt()
        for number, (keys, question) in enumerate(typed, 1):
            terminal.type(keys)
            terminal.see("tokens, stop\n", times=number)
            terminal.see_prompt()
            assert recorder.requests[-1].messages[-1].content == question
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert len(recorder.requests) == len(typed)


def test_the_last_question_can_be_edited(recorder: Serving) -> None:
    editor = "sed -i -e s/One/Two/ -e t -e d"
    command = chat_with(recorder)
    with on_a_terminal(*command, EDITOR=editor, VISUAL="", TERM="xterm") as terminal:
        terminal.see_prompt()
        terminal.type("One?\r")
        terminal.see("stop\n>")
        terminal.see_prompt()
        terminal.type("/edit\r")
        terminal.see("\nTwo?\n")
        terminal.see_prompt()
        terminal.type("/edit\r")
        terminal.see("Nothing is changed.")
        terminal.see_prompt()
        terminal.type("\x04")
        assert terminal.wait() == 0
    first, second = recorder.requests
    assert [turn.content for turn in first.messages] == ["One?"]
    assert [turn.content for turn in second.messages] == ["Two?"]


def test_the_history_is_recalled_and_private(synthetic_server: ServerProcess, state: Path) -> None:
    path = state / "doherty" / "chat_history"
    for line in ("/system One.", "/system Two."):
        with on_a_terminal(*chat_with(synthetic_server)) as terminal:
            terminal.read_until("> ")
            ask(terminal, line)
            terminal.read_until("\n> ")
            terminal.type("\x04")
            assert terminal.wait() == 0
    assert path.read_text() == "/system One.\n/system Two.\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with on_a_terminal(*chat_with(synthetic_server), TERM="xterm") as terminal:
        terminal.see_prompt()
        terminal.type("\x1b[A\x1b[A\r")
        terminal.see("Instructions: One.")
        terminal.see_prompt()
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_nothing_is_kept_without_history(synthetic_server: ServerProcess, state: Path) -> None:
    with on_a_terminal(*chat_with(synthetic_server, "--no-history")) as terminal:
        terminal.read_until("> ")
        ask(terminal, "/system One.")
        terminal.read_until("\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert not state.exists()


def test_a_history_that_cannot_be_written_is_reported_once(synthetic_server: ServerProcess, state: Path) -> None:
    state.write_text("a file where a folder should be")
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        terminal.read_until("The history is not kept: ")
        terminal.read_until("> ")
        ask(terminal, "/system")
        terminal.read_until("deployment's.\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert terminal.screen.count("The history is not kept") == 1


def test_a_long_history_is_shortened(state: Path) -> None:
    path = state / "doherty" / "chat_history"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {number}\n" for number in range(2001)))
    ChatHistory(path)
    assert path.read_text().splitlines() == [f"line {number}" for number in range(1001, 2001)]
