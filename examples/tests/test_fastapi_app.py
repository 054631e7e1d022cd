"""How a web application is tested with `doherty.testing`: HTTP's view of an answer, of a refusal and of a loss."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from doherty import InvalidRequestError, OverloadedError, RpcError, UnavailableError
from doherty.testing import FakeServer, Reply
from fastapi_app import app


@pytest.fixture
def browser(doherty_server: FakeServer) -> Iterator[TestClient]:
    """The application, whose client finds the fake server."""
    assert doherty_server.target
    with TestClient(app) as client:
        yield client


def events(body: str) -> list[tuple[str, str]]:
    """The names and the data of server-sent events."""
    received: list[tuple[str, str]] = []
    for event in body.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines())
        received.append((fields.get("event", "message"), json.loads(fields["data"])))
    return received


def test_an_answer_is_sent_as_events(doherty_server: FakeServer, browser: TestClient) -> None:
    doherty_server.reply("Blue it is.")
    response = browser.get("/answers", params={"prompt": "Which colour?"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events(response.text) == [("message", "Blue"), ("message", " it"), ("message", " is."), ("end", "stop")]
    assert doherty_server.requests[0].prompt == "Which colour?"


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (OverloadedError("full", retry_after=1.5), 429, {"retry-after": "2"}),
        (OverloadedError("full"), 429, {}),
        (InvalidRequestError("the prompt is too long"), 400, {}),
        (UnavailableError("loading"), 503, {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_refused_is_an_http_error(
    error: RpcError, status: int, headers: dict[str, str], doherty_server: FakeServer, browser: TestClient
) -> None:
    doherty_server.reply(error)
    response = browser.get("/answers", params={"prompt": "Hello"})
    assert response.status_code == status
    assert error.message in response.json()["detail"]
    assert headers == {name: value for name, value in response.headers.items() if name == "retry-after"}


def test_what_fails_later_is_an_event(doherty_server: FakeServer, browser: TestClient) -> None:
    doherty_server.reply(Reply("The sky", error=OverloadedError("no more room")))
    response = browser.get("/answers", params={"prompt": "Why?"})
    assert response.status_code == 200
    *texts, (name, data) = events(response.text)
    assert texts == [("message", "The"), ("message", " sky")]
    assert name == "failure"
    assert "no more room" in data
