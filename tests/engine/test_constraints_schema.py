"""A JSON schema is enforced exactly, or refused with the name of the keyword."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, SecretStr

from doherty_engine import InvalidInputError, JsonSchema, UnsupportedError
from doherty_engine.constraints import ConstraintCompiler, write_for_xgrammar

COMPILER = ConstraintCompiler(extra="cpu")
FIELD = "constraint.json_schema"


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def fits(schema: object, text: str) -> bool:
    form = COMPILER.compile(JsonSchema(schema if isinstance(schema, str) else json.dumps(schema)))
    try:
        form.advance(text)
        form.check_end()
    except InvalidInputError:
        return False
    return True


def refusal(schema: object, kind: type[InvalidInputError | UnsupportedError]) -> str:
    with pytest.raises(kind) as caught:
        COMPILER.compile(JsonSchema(schema if isinstance(schema, str) else json.dumps(schema)))
    assert caught.value.field == FIELD
    return str(caught.value)


def objects(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties}


WHOLE = {"type": "integer"}
BASE = {"$defs": {"base": {**objects(a=WHOLE), "required": ["a"]}}}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        ({"enum": [9007199254740991, 10**18]}, ["9007199254740991", "1" + "0" * 18], ["9007199254740992"]),
        ({"const": 0.1}, ["0.1"], ["0.10000000000000001"]),
        ({**WHOLE, "minimum": 2.5, "exclusiveMaximum": 5}, ["3", "4"], ["2", "5"]),
        ({"enum": [1, "a", None], "type": ["string", "null"]}, ['"a"', "null"], ["1"]),
        ({}, ["{}", "1", '[{"a":[1,"b"]}]'], ["a", "{"]),
        ({"type": "object"}, ["{}", '{"a":1,"b":{"c":[]}}'], ["1", "[]"]),
        ({"type": "object", "additionalProperties": WHOLE}, ["{}", '{"a":1,"b":2}'], ['{"a":"b"}', '{"a":{}}']),
        (
            {"type": "object", "additionalProperties": WHOLE, "maxProperties": 2},
            ["{}", '{"a":1,"b":2}'],
            ['{"a":1,"b":2,"c":3}', '{"a":1,"a":2,"a":3}'],
        ),
        ({"type": "object", "additionalProperties": objects(a=WHOLE)}, ['{"x":{"a":1}}'], ['{"x":{"b":1}}']),
        (objects(a=True), ['{"a":{"b":1}}', '{"a":null}'], ['{"b":1}']),
        ({"type": "array"}, ["[]", '[1,{"a":2}]'], ["{}"]),
        (objects(a=WHOLE), ["{}", '{"a":1}'], ['{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"b":1,"b":2}', "3"]),
        (
            {**objects(a=WHOLE), "additionalProperties": {"type": "string"}},
            ['{"a":1,"b":"x"}', '{"b":"x","b":"y"}'],
            ['{"a":"x"}', '{"a":1,"a":"x"}', '{"a":1,"\\u0061":"x"}', '{"b":1}'],
        ),
        (
            {"properties": {"a": WHOLE}, "anyOf": [{"required": ["a"]}, {"additionalProperties": True}]},
            ['{"a":1}', '{"b":"x"}'],
            ['{"a":1,"\\u0061":"x"}'],
        ),
        ({"type": ["object", "null"], **objects(a=WHOLE), "additionalProperties": True}, ['{"a":1,"b":2}'], ["[]"]),
        ({"type": "object", "required": ["a"]}, ['{"a":1}', '{"a":{},"b":2}'], ["{}", '{"b":2}']),
        ({"type": "object", "minProperties": 1}, ['{"a":1}'], ["{}"]),
        ({**objects(x=WHOLE), "patternProperties": {"^a.$": WHOLE}}, ['{"x":1,"ab":1}'], ['{"ab":"x"}', '{"abc":1}']),
        (
            {**BASE, "allOf": [{"$ref": "#/$defs/base"}, {**objects(b=WHOLE), "required": ["b"]}]},
            ['{"a":1,"b":2}'],
            ['{"a":1}', '{"b":2}', '{"a":1,"b":2,"c":3}'],
        ),
        (
            {**BASE, "$ref": "#/$defs/base", "additionalProperties": {"type": ["integer", "string"]}},
            ['{"a":1,"c":"x"}'],
            ['{"c":"x"}', '{"a":1,"\\u0061":"x"}'],
        ),
        (
            {**BASE, "$ref": "#/$defs/base", "properties": {"b": {"$ref": "#/$defs/base"}}},
            ['{"a":1}', '{"a":1,"b":{"a":2}}'],
            ['{"a":1,"b":{"b":{"a":2}}}', "{}"],
        ),
        (
            {"additionalProperties": WHOLE, "anyOf": [{"type": "array"}, objects(a=True)]},
            ['{"a":1}'],
            ["[]", '{"a":"x"}'],
        ),
        ({**objects(a=WHOLE), "unevaluatedProperties": False}, ['{"a":1}'], ['{"b":1}']),
        ({**objects(a=WHOLE), "minProperties": 1, "required": ["a"]}, ['{"a":2}'], ["{}"]),
        (
            {"type": "object", "allOf": [objects(a=WHOLE), {**objects(b=WHOLE), "required": ["b"]}]},
            ['{"a":1,"b":2}', '{"b":2}'],
            ['{"a":1}', '{"b":1,"c":1}'],
        ),
        (
            {**objects(a=WHOLE, b=WHOLE), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            ['{"a":1}', '{"a":1,"b":2}'],
            ["{}", '{"a":1,"c":1}'],
        ),
        (
            {
                "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {
                    "a": {**objects(kind={"const": "a"}, x=WHOLE), "required": ["kind"]},
                    "b": {**objects(kind={"const": "b"}), "required": ["kind"]},
                },
            },
            ['{"kind":"a","x":1}', '{"kind":"b"}'],
            ['{"kind":"b","x":1}', "{}"],
        ),
        ({"type": "array", "items": [WHOLE, {"type": "string"}]}, ['[1,"a"]'], ["[1,2]", '[1,"a",{}]']),
        ({"allOf": [{"$ref": "#/$defs/x"}], "default": 1, "$defs": {"x": WHOLE}}, ["1"], ['"a"']),
        ({"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}, ['{"next":{"next":null}}'], ["[]"]),
        ({"type": "string", "pattern": r"\d{2}"}, ['"12"', '"a12b"'], ['"1a2"', '"\u0661\u0662"']),
        ({"type": "string", "pattern": r"^\s$"}, ['" "'], ['"\N{NO-BREAK SPACE}"']),
        ({"type": "string", "format": "date"}, ['"2026-01-31"'], ['"2026-02-31"']),
        ({"type": "string", "format": "unheard-of"}, ['"anything"'], ["1"]),
        ({"type": "string", "x-guidance": {"lenient": True}}, ['"a"'], ["1"]),
    ],
)
def test_a_schema_is_enforced(schema: object, yes: Sequence[str], no: Sequence[str]) -> None:
    assert [text for text in yes if not fits(schema, text)] == []
    assert [text for text in no if fits(schema, text)] == []


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"enum": [1000000000000000001, 1000000000000000002]}, "enum"),
        ({"const": 2**53 + 1}, "const"),
        ({"const": {"deep": [2**70]}}, "const"),
        (objects(a={"type": "array", "items": {"const": 10**400}}), "const"),
        ('{"const": 0.12345678901234567890123}', "const"),
        ('{"const": 1e999}', "const"),
        ('{"const": 1e99999999999999999999999}', "const"),
        ({**WHOLE, "minimum": -(2**63), "maximum": 2**63 - 1}, "minimum"),
        ({**WHOLE, "maximum": 2**53 + 1}, "maximum"),
        ({**WHOLE, "multipleOf": 99991}, "multipleOf"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({**objects(a=True, b=True), "maxProperties": 1}, "maxProperties"),
        ({**objects(a=True), "additionalProperties": True, "maxProperties": 3}, "maxProperties"),
        ({"patternProperties": {"^a": True}, "maxProperties": 3}, "maxProperties"),
        ({"type": "object", "additionalProperties": WHOLE, "minProperties": 2}, "minProperties"),
        ({**objects(**{"a\n": WHOLE}), "additionalProperties": WHOLE}, "additionalProperties"),
        ({"patternProperties": {"^x": WHOLE}, "additionalProperties": True}, "patternProperties"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"unevaluatedItems": False}, "unevaluatedItems"),
        ({"type": "object", "propertyNames": {"enum": ["a"]}}, "propertyNames"),
        ({**objects(a=WHOLE), "minProperties": 1}, "minProperties"),
        ({**objects(a=WHOLE), "required": ["b"]}, "required"),
        ({"type": "array", "items": WHOLE, "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "a(?=b)"}, "pattern"),
        ({"type": "string", "minLength": 10**9}, "minLength"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": WHOLE, "then": {"minimum": 1}}, "if"),
        ({"oneOf": [WHOLE, {"type": "number"}]}, "oneOf"),
        ({"$ref": "https://example.org/schema"}, "$ref"),
        ({**objects(a=WHOLE), "$ref": "#/$defs/b", "$defs": {"b": {"anyOf": [objects(b=True), {}]}}}, "$ref"),
        ({"type": "string", "allOf": [{"pattern": f"a.*{end}"} for end in "xyz"]}, "pattern"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "exclusiveMinimum"),
        ({"type": "number", "exclusiveMaximum": 1, "allOf": [{"minimum": 0.5}]}, "exclusiveMaximum"),
        ({"enum": [{"a": 1}], "required": ["b"]}, "enum"),
        ({"const": [1], "minItems": 2}, "enum"),
        ({"allOf": [{"enum": [{"a": 1}]}, objects(a={"type": "string"})]}, "enum"),
        ({"enum": [{"a": 1}], "anyOf": [objects(a={"type": "string"})]}, "enum"),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_named(schema: object, keyword: str) -> None:
    assert repr(keyword) in refusal(schema, UnsupportedError)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "thing"}, "type"),
        ({"enum": []}, "enum"),
        ({"anyOf": []}, "anyOf"),
        ({"type": "string", "enum": [1]}, "enum"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "minLength"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({**WHOLE, "minimum": 3, "maximum": 2}, "minimum"),
        ({**WHOLE, "minimum": "3"}, "minimum"),
        ({"properties": []}, "properties"),
        ({**objects(a=WHOLE), "required": "a"}, "required"),
        ({**objects(a=WHOLE), "required": ["b"], "additionalProperties": False}, "required"),
        ({"$ref": "#/nowhere"}, "$ref"),
        ({"$ref": "#"}, "$ref"),
        ({**objects(a=WHOLE), "$ref": "#/$defs/b", "$defs": {"b": {"allOf": [{"$ref": "#/$defs/b"}] * 2}}}, "$ref"),
        (objects(**{f"p{index}": {} for index in range(501)}), "properties"),
        (False, "$schema"),
    ],
)
def test_an_invalid_keyword_is_named(schema: object, keyword: str) -> None:
    assert repr(keyword) in refusal(schema, InvalidInputError)


class Fine(BaseModel):
    """Types whose schemas have formats that only pydantic or other tools use."""

    path: Path
    secret: SecretStr
    raw: bytes
    base64: Base64Bytes
    network: IPv4Network
    expression: re.Pattern[str]
    span: timedelta
    kind: Literal["a", "b"] = "a"
    amount: Decimal = Decimal(0)
    small: Annotated[int, Field(ge=-5, le=5)] = 0
    names: list[str] = []
    pair: tuple[int, str] = (1, "a")
    other: "Fine | None" = None


class Int64(BaseModel):
    """A column of a database."""

    wide: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class Tags(BaseModel):
    """The items are unique."""

    tags: set[int]


class Node(BaseModel):
    """Names that are not listed, with values of all kinds."""

    model_config = ConfigDict(extra="allow")
    counts: dict[str, int]
    filled: Annotated[dict[str, Any], Field(min_length=1)]
    rows: list[dict[str, str | None]] = []
    codes: dict[Annotated[str, Field(pattern="^[a-z]{2}$")], float] = {}
    children: dict[str, "Node"] = {}
    extra: dict[str, Any] | None = None
    anything: Any = None


NODE: dict[str, Any] = {
    "counts": {"a": 1, "b": 2},
    "filled": {"list": [{"of": None}]},
    "rows": [{"a": "x", "b": None}, {}],
    "codes": {"de": 1.5},
    "children": {"first": {"counts": {}, "filled": {"a": 1}, "more": 1}},
    "extra": None,
    "anything": [1, {"a": True}],
    "unlisted": {"b": []},
}


def test_a_model_with_free_names_is_enforced() -> None:
    schema = Node.model_json_schema()
    assert fits(schema, compact(NODE))
    assert not fits(schema, json.dumps(NODE)), "white space costs tokens, and a model may write it endlessly"
    wrong: list[dict[str, Any]] = [
        {"counts": {"a": "x"}},
        {"filled": {}},
        {"rows": [{"a": 1}]},
        {"codes": {"deu": 1}},
        {"children": {"first": {}}},
        {"extra": []},
    ]
    assert [change for change in wrong if fits(schema, compact(NODE | change))] == []


def test_models_of_pydantic_are_enforced_or_refused_by_name() -> None:
    COMPILER.compile(JsonSchema(json.dumps(Fine.model_json_schema())))
    refused: list[tuple[type[BaseModel], str]] = [
        (Int64, "maximum"),
        (Tags, "uniqueItems"),
    ]
    for model, keyword in refused:
        message = refusal(model.model_json_schema(), UnsupportedError)
        assert re.search(rf"'{keyword}'|'minimum'", message), message
        assert "#/" in message


def test_a_schema_with_deep_nesting_or_references_is_refused_in_one_sentence() -> None:
    deep: object = WHOLE
    for _ in range(100):
        deep = {"type": "array", "items": deep}
    assert "nested" in refusal(deep, InvalidInputError)
    assert "nested" in refusal('{"items":' * 3000 + "{}" + "}" * 3000, InvalidInputError)
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(300)}
    assert "more than 256" in refusal({"$ref": "#/$defs/d0", "$defs": {**chain, "d300": WHOLE}}, InvalidInputError)
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    assert fits({"$ref": "#/$defs/d0", "$defs": {**doubling, "d60": WHOLE}}, "7")


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"const": 1.1}, "const"),  # written with 17 digits
        ({"type": "number", "minimum": 0, "maximum": 1}, "minimum"),  # 1.5 would be accepted
        ({**WHOLE, "multipleOf": 2}, "multipleOf"),
        ({"type": ["integer", "null"], "minimum": 0}, "type"),
        ({"type": "string", "pattern": "^a+$", "maxLength": 2}, "pattern"),
        ({"$ref": "#/$defs/x", "maximum": 1, "$defs": {"x": WHOLE}}, "$ref"),
        ({"allOf": [WHOLE, {"type": "integer"}]}, "allOf"),
        ({"type": "string", "pattern": "^[à-ÿ]+$|^[\\u0100-\\u1000]$"}, "pattern"),
        (objects(**{'a"b': WHOLE}), "properties"),
        ({**objects(a=WHOLE), "additionalProperties": True}, "additionalProperties"),
        ({"type": "object", "required": ["a"]}, "required"),
        ({"type": "object", "minProperties": 1}, "minProperties"),
        ({"patternProperties": {"^x": WHOLE}}, "patternProperties"),
        ({**BASE, "allOf": [{"$ref": "#/$defs/base"}, objects(b=WHOLE)]}, "allOf"),
        (objects(**{f"p{n}": {"type": "string", "pattern": f"a{{{n}}}"} for n in range(100)}), "pattern"),
    ],
)
def test_keywords_that_xgrammar_would_apply_wrongly_are_refused_by_name(schema: object, keyword: str) -> None:
    with pytest.raises(UnsupportedError, match=repr(keyword).replace("$", r"\$")):
        write_for_xgrammar(JsonSchema(json.dumps(schema)))


def test_xgrammar_gets_closed_objects_and_patterns_that_json_can_hold() -> None:
    schema = objects(a={"type": "string", "pattern": r'^[\s\S]"\d$'})
    _, kind, text = write_for_xgrammar(JsonSchema(json.dumps(schema)))
    written = json.loads(text)
    assert kind == "json"
    assert written["additionalProperties"] is False
    inside = re.fullmatch(r"\((.*)\)", written["properties"]["a"]["pattern"])
    assert inside is not None
    pattern = re.sub(r"\\u\{(\w+)\}", lambda code: f"\\U{code[1]:0>8}", inside[1])
    assert [text for text in ('é\\"1', '\\n\\"1', '\\\\\\"1') if not re.fullmatch(pattern, text)] == []
    assert [text for text in ('a"1', '"\\"1', '\n\\"1', 'é\\"\u0661') if re.fullmatch(pattern, text)] == []
