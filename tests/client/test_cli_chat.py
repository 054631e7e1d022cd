import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from doherty import Client, Message
from doherty.cli._keyboard import Keyboard
from support.command import DOHERTY, run_doherty
from support.screen import Screen
from support.server import ServerProcess, start_server
from support.terminal import Terminal, on_a_terminal


@pytest.fixture
def slow_server() -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server:
        yield server


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the history goes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


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


@pytest.mark.parametrize("leave", [":q\n", "/quit\n", "\x03", "\x04"])
def test_at_the_prompt_it_is_left(synthetic_server: ServerProcess, leave: str) -> None:
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        assert "synthetic at " in terminal.read_until("> ")
        ask(terminal, "Hello.")
        terminal.read_until("\nfirst after ")
        assert re.fullmatch(r"\d+ ms, \d+ tokens/s > ", terminal.read_until("> "))
        terminal.type(leave)
        assert terminal.wait() == 0


def test_no_ctrl_c_is_lost_while_the_prompt_appears(synthetic_server: ServerProcess) -> None:
    for _ in range(5):
        with on_a_terminal(*chat_with(synthetic_server)) as terminal:
            terminal.read_until("> ")
            terminal.type("\x03")
            assert terminal.wait() == 0


def test_an_answer_is_shown_as_markdown_and_in_whole(synthetic_server: ServerProcess) -> None:
    rows, columns = 8, 60
    with on_a_terminal(*chat_with(synthetic_server), rows=rows, columns=columns, TERM="xterm") as terminal:
        terminal.read_until("> ")
        terminal.type("Hello.\n")
        terminal.read_until("tokens/s > ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    screen = Screen(rows, columns)
    screen.feed(terminal.output)
    with Client(synthetic_server.target) as client:
        answer = client.generate("Hello.").text
    assert "\x1b[?25l" in terminal.output
    assert len(answer) > rows * columns
    _, _, behind = screen.text.partition("> Hello.\n")
    shown, _, _ = behind.partition("\nfirst after ")
    assert shown.split() == answer.split()


def test_ctrl_c_keeps_the_part_that_was_shown_as_markdown(slow_server: ServerProcess) -> None:
    rows, columns = 24, 80
    with on_a_terminal(*chat_with(slow_server), rows=rows, columns=columns, TERM="xterm") as terminal:
        terminal.read_until("> ")
        terminal.type("Tell me a story.\n")
        terminal.read_until("\n")
        terminal.read_until(" ")
        terminal.type("\x03")
        terminal.read_until("stopped\n")
        slow_server.wait_for("request", rpc="StreamGenerate", code="CANCELLED")
        terminal.read_until("> ")
        terminal.type("/quit\n")
        assert terminal.wait() == 0
    screen = Screen(rows, columns)
    screen.feed(terminal.output)
    _, _, behind = screen.text.partition("> Tell me a story.\n")
    assert behind.partition("stopped")[0].strip()


def test_slash_commands(slow_server: ServerProcess, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    (tmp_path / "there.md").write_text("mine")
    with on_a_terminal(*chat_with(slow_server, "--system", "Be brief.")) as terminal:
        terminal.read_until("> ")
        for line, told in (
            ("/system", "Instructions: Be brief."),
            ("/system Be kind.", "Instructions: Be kind."),
            (f"/save {tmp_path / 'there.md'}", "choose another name"),
            (f"/save {tmp_path / 'talk.txt'}", "saved as .md or .json"),
            (f"/save {tmp_path / 'no' / 'talk.md'}", "Not saved: "),
            ("/save", "/save FILE"),
            ("/help", "/system [TEXT]"),
            ("/nonsense", "There is no /nonsense; /help lists"),
        ):
            ask(terminal, line)
            terminal.read_until(told)
            terminal.read_until("> ")
        ask(terminal, " /dev/null, what is it?")
        terminal.read_until(" ")
        terminal.type("\x03")
        terminal.read_until("\nstopped\n> ")
        for _ in range(2):
            ask(terminal, f"/save {saved}")
            terminal.read_until(f"Saved 2 messages into {saved}.\n> ")
        ask(terminal, "/new")
        terminal.read_until("A new conversation.\n> ")
        ask(terminal, "/system -")
        terminal.read_until("The instructions are the deployment's.\n> ")
        ask(terminal, "Why?")
        terminal.read_until(" ")
        terminal.type("\x03/quit\n")
        assert terminal.wait() == 0
    assert (tmp_path / "there.md").read_text() == "mine"
    told = json.loads(saved.read_text())
    assert (told["model"], told["system"]) == ("synthetic", "Be kind.")
    assert [turn["role"] for turn in told["messages"]] == ["user", "assistant"]
    assert told["messages"][0]["content"] == "/dev/null, what is it?"
    with Client(slow_server.target) as client:
        first = client.count_tokens(told["messages"][:1], system="Be kind.")
        after = client.count_tokens("Why?")
    slow_server.wait_for("request", rpc="StreamGenerate", prompt_tokens=first)
    slow_server.wait_for("request", rpc="StreamGenerate", prompt_tokens=after)


def test_piped_commands_work_and_stdout_has_the_answers_alone(synthetic_server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "talk.md"
    text = f"/system Be brief.\nHello.\n/save {path}\n"
    finished = run_doherty("chat", "--target", synthetic_server.target, text=text)
    with Client(synthetic_server.target) as client:
        answer = client.generate("Hello.", system="Be brief.").text
    assert (finished.returncode, finished.stdout) == (0, f"{answer}\n")
    assert finished.stderr == f"Instructions: Be brief.\nSaved 2 messages into {path}.\n"
    assert path.read_text() == (
        "# A conversation with synthetic\n\n## Instructions\n\nBe brief.\n\n"
        f"## You\n\nHello.\n\n## synthetic\n\n{answer}\n"
    )


def test_what_was_typed_is_recalled_and_private(synthetic_server: ServerProcess, state: Path) -> None:
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
        terminal.read_until("> ")
        terminal.type("\x1b[A\x1b[A\n")
        terminal.read_until("Instructions: One.")
        terminal.read_until("> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_without_history_nothing_is_kept(synthetic_server: ServerProcess, state: Path) -> None:
    with on_a_terminal(*chat_with(synthetic_server, "--no-history")) as terminal:
        terminal.read_until("> ")
        ask(terminal, "/system One.")
        terminal.read_until("\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert not state.exists()


def test_a_history_that_cannot_be_kept_is_told_once(synthetic_server: ServerProcess, state: Path) -> None:
    state.write_text("a file where a folder should be")
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        terminal.read_until("The history is not kept: ")
        terminal.read_until("> ")
        ask(terminal, "/system")
        terminal.read_until("deployment's.\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert terminal.screen.count("The history is not kept") == 1


def test_a_long_history_is_cut(state: Path) -> None:
    path = state / "doherty" / "chat_history"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {number}\n" for number in range(2001)))
    Keyboard(path)
    assert path.read_text().splitlines() == [f"line {number}" for number in range(1001, 2001)]


def test_on_a_terminal_a_call_that_fails_leaves_the_conversation_as_it_is() -> None:
    with (
        start_server("--engine", "synthetic", "-o", "fail_after_tokens=5") as server,
        on_a_terminal(*chat_with(server, "--timeout", "3")) as terminal,
    ):
        terminal.read_until("> ")
        ask(terminal, "Hello.")
        assert "\ndoherty: " in terminal.read_until("\n> ")
        ask(terminal, "And now?")
        assert "\ndoherty: " in terminal.read_until("\n> ")
        terminal.type(":q\n")
        assert terminal.wait() == 0
