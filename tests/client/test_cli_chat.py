"""The conversation of `doherty chat`."""

import json
from pathlib import Path

import pytest

from doherty import Client, Message
from doherty.cli._conversation import Conversation
from support.chat import ask, chat_with
from support.command import run_doherty
from support.server import ServerProcess, start_server
from support.serving import Serving
from support.terminal import on_a_terminal

pytestmark = pytest.mark.usefixtures("state")


def test_a_piped_chat_remembers_the_conversation(synthetic_server: ServerProcess) -> None:
    target = synthetic_server.target
    finished = run_doherty("chat", "--system", "Be brief.", "--target", target, text="Hello.\n\nAnd you?\n:q\nNo.\n")
    with Client(target) as client:
        first = client.generate("Hello.", system="Be brief.").text
        turns = [Message("user", "Hello."), Message("assistant", first), Message("user", "And you?")]
        second = client.generate(turns, system="Be brief.").text
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"{first}\n{second}\n"


def test_a_failed_call_ends_a_piped_chat(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("chat", "--target", synthetic_server.target, text="many words " * 10_000 + "\nHello.\n")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert "INVALID_ARGUMENT" in finished.stderr


def test_ctrl_c_stops_an_answer_and_keeps_its_part_in_the_conversation(slow_server: ServerProcess) -> None:
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


def test_several_piped_lines_in_quotes_are_one_question(recorder: Serving) -> None:
    finished = run_doherty("chat", "--target", recorder.target, text='"""One,\ntwo.\n"""\nThree.\n"""Four,\nfive')
    assert (finished.returncode, finished.stdout) == (0, "fine\n" * 3)
    first, second, third = recorder.requests
    assert [turn.content for turn in first.messages] == ["One,\ntwo."]
    assert [turn.content for turn in second.messages] == ["One,\ntwo.", "fine", "Three."]
    assert third.messages[-1].content == "Four,\nfive"


def test_piped_answers_as_json_have_one_line_each(synthetic_server: ServerProcess) -> None:
    finished = run_doherty("chat", "--json", "--target", synthetic_server.target, text="Hello.\nAnd you?\n")
    first, second = map(json.loads, finished.stdout.splitlines())
    with Client(synthetic_server.target) as client:
        assert first["text"] == client.generate("Hello.").text
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


def test_settings_are_sent_with_the_requests(recorder: Serving) -> None:
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
    printed = finished.stderr.splitlines()
    assert printed[4:6] == ["temperature is the deployment's", "seed 3"]
    assert printed[6].startswith("seed stays as it is: ")
    assert printed[7].startswith("max_output_tokens stays as it is: ")
    assert printed[8] == "There is no length to set, only temperature, top_p, max_output_tokens, seed."
    assert printed[9:] == ["temperature is the deployment's", "top_p 0.9", "max_output_tokens 7", "seed 3"]


def test_a_value_that_the_server_refuses_can_be_changed(synthetic_server: ServerProcess) -> None:
    with on_a_terminal(*chat_with(synthetic_server)) as terminal:
        terminal.read_until("> ")
        ask(terminal, "/set temperature 9")
        terminal.read_until("> ")
        ask(terminal, "Hello.")
        terminal.read_until("temperature: must be from 0 to 2")
        terminal.read_until("\n> ")
        ask(terminal, "/set temperature 0")
        terminal.read_until("> ")
        ask(terminal, "/retry")
        terminal.read_until(" tokens, first after ")
        terminal.read_until("\n> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_an_answer_is_kept_until_another_one_replaces_it() -> None:
    conversation = Conversation("m", None)
    conversation.add("One?", "1")
    conversation.add("Two?", "2")
    before = list(conversation.turns)
    conversation.take_back()
    assert conversation.turns == before[:2]
    conversation.add("Two?", "")
    assert (conversation.turns, conversation.last_question) == (before, "Two?")
    conversation.take_back()
    conversation.add("Two?", "deux")
    assert [turn.content for turn in conversation.turns] == ["One?", "1", "Two?", "deux"]


def test_a_conversation_can_be_loaded_and_its_last_question_repeated(recorder: Serving, tmp_path: Path) -> None:
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
    printed = finished.stderr.splitlines()
    assert printed[0] == "There is no question yet."
    assert f"Loaded 4 messages from {path}." in printed
    assert printed[-3:-1] == [
        "From which file? /load FILE",
        f"Not loaded: [Errno 2] No such file or directory: '{tmp_path / 'nothing.json'}'",
    ]
    assert printed[-1] == "/edit needs a terminal."


def test_slash_commands(slow_server: ServerProcess, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    (tmp_path / "there.md").write_text("mine")
    with on_a_terminal(*chat_with(slow_server, "--system", "Be brief.")) as terminal:
        terminal.read_until("> ")
        for line, shown in (
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
            terminal.read_until(shown)
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
    conversation = json.loads(saved.read_text())
    assert (conversation["model"], conversation["system"]) == ("synthetic", "Be kind.")
    assert [turn["role"] for turn in conversation["messages"]] == ["user", "assistant"]
    assert conversation["messages"][0]["content"] == "/dev/null, what is it?"
    with Client(slow_server.target) as client:
        first = client.count_tokens(conversation["messages"][:1], system="Be kind.")
        after = client.count_tokens("Why?")
    slow_server.wait_for("request", rpc="StreamGenerate", prompt_tokens=first)
    slow_server.wait_for("request", rpc="StreamGenerate", prompt_tokens=after)


def test_piped_commands_work_and_stdout_contains_only_answers(synthetic_server: ServerProcess, tmp_path: Path) -> None:
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


def test_a_failed_call_on_a_terminal_does_not_change_the_conversation() -> None:
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
