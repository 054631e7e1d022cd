import json

import pytest

from doherty_engine import InvalidInputError, UnsupportedError
from doherty_engine.synthetic._schema import smallest_value

PERSON = {
    "$defs": {"Town": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 9},
        "age": {"type": "integer", "minimum": 18},
        "town": {"$ref": "#/$defs/Town"},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "required": ["name", "age", "town", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, None),
        ({}, None),
        ({"type": "null"}, None),
        ({"type": "boolean"}, False),
        ({"type": "string"}, ""),
        ({"minLength": 3}, "aaa"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": -5, "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "minimum": 2.5}, 2.5),
        ({"type": ["integer", "null"]}, 0),
        ({"enum": ["b", "a"], "type": "string"}, "b"),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, ""),
        ({"oneOf": [{"const": 5}, {"const": 6}]}, 5),
        ({"type": "array", "items": {"type": "boolean"}}, []),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"type": "object", "required": ["free"]}, {"free": None}),
        (
            {
                "$defs": {"a/b": {"type": "array"}},
                "type": "object",
                "required": ["x"],
                "properties": {"x": {"$ref": "#/$defs/a~1b"}},
            },
            {"x": []},
        ),
        (PERSON, {"name": "aa", "age": 18, "town": {"name": ""}, "tags": ["x", "x"]}),
    ],
)
def test_the_smallest_valid_value_is_generated(schema: object, value: object) -> None:
    assert json.loads(smallest_value(json.dumps(schema), 1000)) == value


def test_an_exclusive_bound_is_not_reached() -> None:
    assert json.loads(smallest_value('{"type": "number", "exclusiveMinimum": 1}', 1000)) > 1


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "3",
        '{"const": NaN}',
        "false",
        '{"type": "thing"}',
        '{"type": "integer", "minimum": 3, "maximum": 2}',
        '{"type": "integer", "minimum": "3"}',
        '{"type": "integer", "minimum": 1e999}',
        '{"type": "string", "minLength": -1}',
        '{"type": "string", "minLength": 3, "maxLength": 2}',
        '{"type": "string", "minLength": 1000000000000}',
        '{"type": "array", "minItems": 900, "items": {"type": "array", "minItems": 900}}',
        '{"type": "array", "minItems": 900, "items": {"const": "a long text"}}',
        '{"type": "object", "required": ["a"], "additionalProperties": false}',
        '{"type": "object", "required": "a"}',
        '{"type": "object", "required": [3]}',
        '{"enum": []}',
        '{"$ref": "#/$defs/Nothing"}',
        '{"$ref": "#"}',
        "[" * 100_000,
    ],
)
def test_an_invalid_or_unsatisfiable_schema_is_refused(schema: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        smallest_value(schema, 1000)
    assert caught.value.field == "constraint.json_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "string", "format": "date"},
        {"not": {}},
        {"allOf": [{}]},
        {"type": "integer", "multipleOf": 7},
        {"$ref": "other.json"},
        {"$ref": "#", "type": "object"},
        {"type": "array", "uniqueItems": True, "minItems": 2},
    ],
)
def test_an_unsupported_keyword_is_refused_by_name(schema: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        smallest_value(json.dumps(schema), 1000)
    assert caught.value.field == "constraint.json_schema"
