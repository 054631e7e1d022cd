"""How a program is tested with `doherty.testing`: a conversation, an error and a lost connection."""

import io

import pytest

import chat
from doherty import InvalidRequestError, Limits, Message, ModelInfo
from doherty.testing import FakeServer, Reply


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_each_question_carries_the_conversation(
    doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Name an ocean.", "", "Another one!")
    doherty_server.reply("The Pacific.", "The Atlantic.")
    chat.main()
    assert capsys.readouterr().out == "> The Pacific.\n> > The Atlantic.\n> "
    first, second = doherty_server.requests
    assert first.prompt == "Name an ocean."
    assert second.messages == [
        Message("system", chat.SYSTEM),
        Message("user", "Name an ocean."),
        Message("assistant", "The Pacific."),
        Message("user", "Another one!"),
    ]


def test_the_oldest_turns_are_forgotten(doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "one", "two", "three")
    doherty_server.model = ModelInfo(limits=Limits(context_tokens=chat.ANSWER_TOKENS + 40))
    doherty_server.count_tokens = lambda request: 10 * len(request.messages)
    doherty_server.reply("1", "2", "3")
    chat.main()
    conversations = [[message.content for message in request.messages[1:]] for request in doherty_server.requests]
    assert conversations == [["one"], ["one", "1", "two"], ["two", "2", "three"]]


def test_a_question_that_failed_is_not_a_part_of_the_conversation(
    doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Too long", "Short")
    doherty_server.reply(InvalidRequestError("the prompt is too long"), "Fine.")
    chat.main()
    assert "the prompt is too long" in capsys.readouterr().err
    assert doherty_server.requests[1].prompt == "Short"


def test_an_answer_goes_on_after_its_connection_is_lost(
    doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Why is the sky blue?")
    doherty_server.reply(Reply("Air scatters", cut_off=True), "Air scatters blue light.")
    chat.main()
    assert capsys.readouterr().out == "> Air scatters blue light.\n> "
    assert doherty_server.requests[1].options.continue_from == "Air scatters"
