import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from doherty import Client, Message
from doherty.cli._history import ChatHistory
from support.command import DOHERTY, run_doherty
from support.server import ServerProcess, start_server
from support.serving import Serving, answer, serve
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


@pytest.fixture
def recorder() -> Iterator[Serving]:
    """A server that keeps its requests, and answers "fine"."""
    with serve(lambda _, __: iter(answer())) as serving:
        yield serving


def ask(terminal: Terminal, question: str) -> None:
    terminal.type(question + "\n")
    terminal.read_until(question + "\n")


def answer_on_screen(terminal: Terminal, question: str) -> str:
    """What stands between a question and what is told of the answer to it."""
    _, asked, behind = "\n".join(terminal.lines).partition(f"> {question}\n")
    assert asked
    shown = re.split(r"\n(?:stopped|\d+ tokens, .*)\n", behind)
    assert len(shown) > 1
    return shown[0]


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


def test_an_answer_is_shown_as_markdown_and_in_whole(synthetic_server: ServerProcess) -> None:
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
def test_ctrl_c_keeps_the_part_that_was_shown_and_shows_it_once(slow_server: ServerProcess, columns: int) -> None:
    with Client(slow_server.target) as client:
        words = client.generate("Hello.", max_output_tokens=25).text.split()
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
    assert len(shown) > 15
    assert shown[:16] == words[:16]
    assert len(shown) < 2 * 16
    assert "^C" not in terminal.screen


def test_what_is_typed_during_an_answer_is_at_the_next_prompt() -> None:
    with start_server("--engine", "synthetic", "-o", "answer_tokens=40", "-o", "tokens_per_second=40") as server:
        with on_a_terminal(*chat_with(server), columns=40, TERM="xterm") as terminal:
            terminal.see_prompt()
            terminal.type("Hello.\r")
            terminal.see(" ")
            server.wait_for("request", rpc="GetModel")
            terminal.type("later")
            terminal.see("\n> later")
            terminal.type("\x03")
            assert terminal.wait() == 0
        with Client(server.target) as client:
            expected = client.generate("Hello.").text
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
    with on_a_terminal(*DOHERTY, "chat", "--target", recorder.target, TERM="xterm") as terminal:
        terminal.see_prompt()
        for number, (keys, question) in enumerate(typed, 1):
            terminal.type(keys)
            terminal.see("tokens, stop\n", times=number)
            terminal.see_prompt()
            assert recorder.requests[-1].messages[-1].content == question
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert len(recorder.requests) == len(typed)


def test_piped_several_lines_in_quotes_are_one_question(recorder: Serving) -> None:
    finished = run_doherty("chat", "--target", recorder.target, text='"""One,\ntwo.\n"""\nThree.\n"""Not ended')
    assert (finished.returncode, finished.stdout) == (0, "fine\nfine\n")
    first, second = recorder.requests
    assert [turn.content for turn in first.messages] == ["One,\ntwo."]
    assert [turn.content for turn in second.messages] == ["One,\ntwo.", "fine", "Three."]


def test_piped_answers_as_json_are_one_line_each(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("chat", "--json", "--target", synthetic_server.target, text="Hello.\nAnd you?\n")
    first, second = map(json.loads, finished.stdout.splitlines())
    with Client(synthetic_server.target) as client:
        assert first["text"] == client.generate("Hello.").text
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


def test_what_is_set_goes_into_the_requests(recorder: Serving) -> None:
    lines = (
        "/set temperature 0.5",
        "/set top_p 0.9",
        "/set max_output_tokens 7",
        "/set seed 3",
        "One?",
        "/set temperature -",
        "/set seed",
        "/set seed -1",
        "/set max_output_tokens many",
        "/set length 5",
        "Two?",
        "/set",
    )
    finished = run_doherty("chat", "--target", recorder.target, text="\n".join(lines) + "\n")
    assert finished.returncode == 0
    first, second = recorder.requests
    assert (first.sampling.temperature, first.sampling.seed, first.stopping.max_output_tokens) == (0.5, 3, 7)
    assert first.sampling.top_p == pytest.approx(0.9)
    assert not second.sampling.HasField("temperature")
    assert (second.sampling.seed, second.stopping.max_output_tokens) == (3, 7)
    told = finished.stderr.splitlines()
    assert told[4:6] == ["temperature is the deployment's", "seed 3"]
    assert told[6].startswith("seed stays as it is: ")
    assert told[7].startswith("max_output_tokens stays as it is: ")
    assert told[8] == "There is no length to set, only temperature, top_p, max_output_tokens, seed."
    assert told[9:] == ["temperature is the deployment's", "top_p 0.9", "max_output_tokens 7", "seed 3"]


def test_a_value_that_the_server_refuses_can_be_changed(synthetic_server: ServerProcess) -> None:
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        terminal.read_until("> ")
        ask(terminal, "/set temperature 9")
        terminal.read_until("> ")
        ask(terminal, "Hello.")
        terminal.read_until("sampling.temperature")
        terminal.read_until("\n> ")
        ask(terminal, "/set temperature 0")
        terminal.read_until("> ")
        ask(terminal, "/retry")
        terminal.read_until(" tokens, first after ")
        terminal.read_until("\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_a_conversation_is_loaded_and_its_last_question_asked_again(recorder: Serving, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    lines = (
        "/retry",
        "/system Be brief.",
        "One?",
        "Two?",
        f"/save {path}",
        "/clear",
        "/system -",
        f"/load {path}",
        "/retry",
        "/load",
        f"/load {tmp_path / 'nothing.json'}",
        "/edit",
    )
    finished = run_doherty("chat", "--target", recorder.target, text="\n".join(lines) + "\n")
    assert (finished.returncode, finished.stdout) == (0, "fine\n" * 3)
    assert recorder.requests[2] == recorder.requests[1]
    assert [turn.content for turn in recorder.requests[2].messages] == ["Be brief.", "One?", "fine", "Two?"]
    told = finished.stderr.splitlines()
    assert told[0] == "There is no question yet."
    assert f"Loaded 4 messages from {path}." in told
    assert told[-3:-1] == [
        "From which file? /load FILE",
        f"Not loaded: [Errno 2] No such file or directory: '{tmp_path / 'nothing.json'}'",
    ]
    assert told[-1] == "/edit needs a terminal."


def test_the_last_question_is_edited(recorder: Serving) -> None:
    editor = "sed -i -e s/One/Two/ -e t -e d"
    command = (*DOHERTY, "chat", "--target", recorder.target)
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
        terminal.see_prompt()
        terminal.type("\x1b[A\x1b[A\r")
        terminal.see("Instructions: One.")
        terminal.see_prompt()
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
    ChatHistory(path)
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
