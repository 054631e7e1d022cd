"""Constraints on the embedded engine: valid ones are enforced, invalid ones are refused."""

import json
import re

import pytest

from doherty_engine import (
    AnswerPrefix,
    Choices,
    Constraint,
    EngineError,
    FinishReason,
    Grammar,
    InvalidInputError,
    JsonSchema,
    Regex,
    Stopping,
    UnsupportedError,
)
from support.llamacpp import Ask

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"color": {"enum": ["mauve", "teal"]}, "count": {"type": "integer", "maximum": 9}},
        "required": ["color", "count"],
        "additionalProperties": False,
    }
)


async def test_a_json_schema_is_enforced(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(constraint=JsonSchema(SCHEMA))
    value = json.loads(outcome.text)
    assert value["color"] in {"mauve", "teal"}
    assert value["count"] <= 9
    assert outcome.finish.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "object"}, object),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}, int),
        (
            {"properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": {"type": "integer"}},
            int,
        ),
    ],
)
async def test_an_object_with_free_names_is_enforced(llamacpp_ask: Ask, schema: dict[str, object], kind: type) -> None:
    outcome = await llamacpp_ask(constraint=JsonSchema(json.dumps(schema)), stopping=Stopping(max_output_tokens=200))
    assert outcome.text.lstrip().startswith("{")
    assert outcome.finish.reason in {FinishReason.STOP, FinishReason.LENGTH}
    if outcome.finish.reason is FinishReason.STOP:
        assert all(isinstance(value, kind) for value in json.loads(outcome.text).values())


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        (Regex(r"\d{2}/[a-f]{3}"), r"\d{2}/[a-f]{3}"),
        (
            Regex(
                r"[^/]/\/é\
z"
            ),
            r"[^/]//é\nz",
        ),
        (Regex(r"^(?i:YES|no)$"), r"(?i:yes|no)"),
        (Regex(r"^\d{5}$"), r"[0-9]{5}"),
        (JsonSchema('{"type": "string", "pattern": "^\\\\d{5}$", "format": "zip"}'), r'"[0-9]{5}"'),
        (Choices(('Or"ange/\\', "é😀\n", "Yellow?")), r"Or\"ange/\\|é😀\n|Yellow\?"),
        (Grammar('root ::= "<" item{2} ">"\nitem ::= [xy] | "z" # one\n'), r"<[xyz]{2}>"),
        (Grammar('root ::= "((" inner "))"\ninner ::= "(" inner ")" | [0-9]'), r"\(\(\(*\d\)*\)\)"),
        (Grammar('root ::= "\\u00e9\\x41" "" | "\\"\\\\"'), r"éA|\"\\"),
    ],
)
async def test_other_constraints_are_enforced(llamacpp_ask: Ask, constraint: Constraint, pattern: str) -> None:
    outcome = await llamacpp_ask(constraint=constraint, stopping=Stopping(max_output_tokens=30))
    assert re.fullmatch(pattern, outcome.text)
    assert outcome.finish.reason is FinishReason.STOP
    assert outcome.finish.output_tokens == outcome.token_count


async def test_the_maximum_length_may_cut_a_constrained_answer(llamacpp_ask: Ask) -> None:
    outcome = await llamacpp_ask(constraint=Regex("[a-z]{100}"), stopping=Stopping(max_output_tokens=5))
    assert re.fullmatch("[a-z]+", outcome.text)
    assert outcome.finish.reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("constraint", "error"),
    [
        (JsonSchema("{"), InvalidInputError),
        (JsonSchema("[]"), InvalidInputError),
        (JsonSchema('{"type": "bogus"}'), InvalidInputError),
        (JsonSchema('{"enum": []}'), InvalidInputError),
        (JsonSchema('{"$ref": "#/nowhere"}'), InvalidInputError),
        (JsonSchema('{"not": {"type": "string"}}'), UnsupportedError),
        (JsonSchema('{"enum": [1000000000000000001, 1000000000000000002]}'), UnsupportedError),
        (JsonSchema('{"type": "object", "additionalProperties": true, "minProperties": 2}'), UnsupportedError),
        (JsonSchema('{"items":' * 5000 + "{}" + "}" * 5000), InvalidInputError),
        (JsonSchema(json.dumps({"enum": ["x" * 40_000]})), InvalidInputError),
        (Regex("(a"), InvalidInputError),
        (Regex("[a&&b]"), InvalidInputError),
        (Regex("a\\"), InvalidInputError),
        (Regex("a(?=b)"), UnsupportedError),
        (Regex("(" * 5000 + "a" + ")" * 5000), InvalidInputError),
        (Grammar('root ::= "a'), InvalidInputError),
        (Grammar("root ::= nowhere"), InvalidInputError),
        (Grammar('other ::= "a"'), InvalidInputError),
        (Grammar("root ::= root"), InvalidInputError),
        (Grammar('root ::= "a"{5,2}'), InvalidInputError),
        (Grammar("root ::= <[5]>"), InvalidInputError),
        (Grammar("root ::= " + "(" * 5000 + '"a"' + ")" * 5000), InvalidInputError),
        (Grammar("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(2000)) + 'r2000 ::= "a"'), None),
    ],
)
async def test_an_invalid_constraint_is_refused(
    llamacpp_ask: Ask, constraint: Constraint, error: type[EngineError] | None
) -> None:
    outcome = await llamacpp_ask(constraint=constraint)
    refused = outcome.error
    assert isinstance(refused, error or InvalidInputError)
    assert isinstance(refused, InvalidInputError | UnsupportedError)
    assert refused.field.startswith("constraint.")
    assert "start:" not in str(refused)
    assert len(outcome.outputs) == 1


@pytest.mark.parametrize("pattern", ["((a{1,1000}){1,1000}){1,1000}", "a?" * 500 + "b", "(.*a.{500}b)|(.*c.{400}d)"])
async def test_an_answer_that_violates_its_constraint_is_not_delivered(llamacpp_ask: Ask, pattern: str) -> None:
    outcome = await llamacpp_ask(constraint=Regex(pattern), stopping=Stopping(max_output_tokens=60))
    last = outcome.outputs[-1]
    if last.finish is not None and last.finish.reason is FinishReason.STOP:
        assert re.fullmatch(pattern, outcome.text)
    elif last.finish is None:
        assert isinstance(last.error, InvalidInputError)
        assert last.error.field == "constraint.regex"


async def test_a_constraint_cannot_be_combined_with_a_prefix_or_ignore_eos(llamacpp_ask: Ask) -> None:
    held = await llamacpp_ask(constraint=Choices(("Blue",)), prefix=AnswerPrefix(text="B"))
    endless = await llamacpp_ask(constraint=Choices(("Blue",)), stopping=Stopping(ignore_eos=True))
    assert isinstance(held.error, UnsupportedError)
    assert held.error.field == "continue_from"
    assert isinstance(endless.error, UnsupportedError)
    assert endless.error.field == "stopping.ignore_eos"
