"""How a program is tested with `doherty.testing`: ordinary code, and what it asked."""

import io

import pytest

import summarize
from doherty import Client, Limits, ModelInfo
from doherty.testing import FakeServer


def test_a_text_that_fits_is_summarized_at_once(
    doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doherty_server.reply("It is blue. Nobody knows why.")
    monkeypatch.setattr("sys.stdin", io.StringIO("A long text on the sky.\n"))
    summarize.main()
    assert capsys.readouterr().out == "It is blue. Nobody knows why.\n"
    [request] = doherty_server.requests
    assert (request.prompt, request.system) == ("A long text on the sky.", summarize.INSTRUCTIONS)


def test_a_text_that_is_too_long_is_summarized_in_parts(doherty_server: FakeServer) -> None:
    # The fake counts words; six of them are the instructions'.
    doherty_server.model = ModelInfo(limits=Limits(context_tokens=summarize.SUMMARY_TOKENS + 10))
    doherty_server.reply("About one.", "About five.", "All in all.")
    with Client() as client:
        assert "".join(summarize.summarize(client, "one two three four five six seven eight")) == "All in all."
    assert [request.prompt for request in doherty_server.requests] == [
        "one two three four ",
        "five six seven eight",
        "About one.\n\nAbout five.",
    ]


def test_without_a_text_nothing_is_asked(doherty_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(SystemExit, match="There is no text"):
        summarize.main()
    assert not doherty_server.requests
