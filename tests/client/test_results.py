"""Results as plain data, and in notebooks."""

import datetime as dt
import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from doherty import (
    Client,
    Delta,
    FinishReason,
    GenerateOptions,
    Generation,
    Quantiles,
    ReplyMetadata,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from support.server import ServerProcess

DETAILS = GenerateOptions(token_ids=True, top_logprobs=1)


@pytest.fixture(scope="module")
def answer(synthetic_server: ServerProcess) -> Generation:
    with Client(synthetic_server.target) as client:
        return client.generate("Hi", max_output_tokens=3, options=DETAILS)


def test_an_answer_can_become_plain_data(answer: Generation) -> None:
    plain = answer.to_dict()
    assert list(plain) == list(Generation.__dataclass_fields__)
    assert (plain["text"], plain["finish_reason"]) == (answer.text, "length")
    assert plain["usage"] == {"prompt_tokens": answer.usage.prompt_tokens, "output_tokens": 3, "cached_tokens": None}
    assert plain["token_ids"] == list(answer.token_ids or ())
    assert [len(token["top"]) for token in plain["logprobs"]] == [1, 1, 1]
    assert "server-timing" in plain["metadata"]["trailing"]
    assert json.loads(answer.to_json()) == plain
    assert "\n" not in answer.to_json()
    assert json.loads(answer.to_json(indent=2)) == plain
    assert answer.to_json(indent=2).startswith('{\n  "text"')


def test_a_model_and_a_latency_can_become_plain_data(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client:
        model, latency = client.model(), client.latency()
    assert model.to_dict()["limits"]["context_tokens"] == model.limits.context_tokens
    assert json.loads(model.to_json())["features"] == list(model.features)
    assert json.loads(latency.to_json())["requests"]["outcomes"] is not None


def test_values_that_json_lacks_are_converted() -> None:
    top = (TopLogprob(1, b"\xff", -math.inf),)
    token = TokenLogprob(1, b"ab", math.nan, top)
    assert json.loads(token.to_json()) == {
        "token_id": 1,
        "token": "YWI=",
        "logprob": "NaN",
        "top": [{"token_id": 1, "token": "/w==", "logprob": "-Infinity"}],
    }
    assert ReplyMetadata({"x-bin": b"\x00"}).to_dict()["initial"] == {"x-bin": "AA=="}
    assert Delta("é", None, None, 1).to_json() == '{"text": "é", "token_ids": null, "logprobs": null, "token_count": 1}'


class Person(BaseModel):
    name: str
    born: dt.date


@dataclass
class Town:
    name: str
    people: list[Person]


@pytest.mark.parametrize(
    ("parsed", "plain"),
    [
        (Person(name="A", born=dt.date(2000, 1, 2)), {"name": "A", "born": "2000-01-02"}),
        (
            Town("T", [Person(name="A", born=dt.date(2000, 1, 2))]),
            {"name": "T", "people": [{"name": "A", "born": "2000-01-02"}]},
        ),
        ([dt.date(2000, 1, 2)], ["2000-01-02"]),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        (FinishReason.STOP, "stop"),
        (None, None),
    ],
)
def test_parsed_answers_can_become_plain_data(answer: Generation, parsed: Any, plain: object) -> None:
    other: Generation = Generation(**{**{name: getattr(answer, name) for name in answer.to_dict()}, "parsed": parsed})
    assert json.loads(other.to_json())["parsed"] == plain


def test_a_notebook_shows_the_text_or_a_table(answer: Generation) -> None:
    parsed: Generation = Generation(
        **{**{name: getattr(answer, name) for name in answer.to_dict()}, "parsed": {}, "text": "{}"}
    )
    assert answer._repr_markdown_() == answer.text
    assert parsed._repr_markdown_() == "```json\n{}\n```"
    assert Delta("*a*", None, None, 1)._repr_markdown_() == "*a*"
    assert Quantiles(0.5, None, 1)._repr_markdown_() == "| | |\n|---|---|\n| p50 | 0.5 |\n| p90 | None |\n| p99 | 1 |"
    rows = ReplyMetadata({"x": "c|d\ne\\"})._repr_markdown_().splitlines()
    assert rows[2:] == ["| initial.x | c\\|d e\\\\ |", "| trailing | {} |"]


def test_results_have_no_instance_dictionary() -> None:
    for result in (Usage(1, 2, 3), Quantiles(1, 2, 3), Timings(1, 2, 3, 4, 5, 6)):
        assert not hasattr(result, "__dict__")
