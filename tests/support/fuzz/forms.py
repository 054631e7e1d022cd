"""Constraints that no person would write: JSON schemas, regular expressions and grammars."""

import json
from typing import Any

from hypothesis import strategies as st

from support.fuzz.values import TEXTS

_NAMES = st.sampled_from(["type", "properties", "items", "a", "b", "", "$ref", "é", "\0"])
_NUMBERS = st.integers(-3, 9) | st.sampled_from([-(2**63), 2**31, 2**64, 10**40]) | st.floats()
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_TYPES = ["object", "array", "string", "integer", "number", "boolean", "null", "none such", ["string", "null"], 3]
_REFERENCES = ["#", "#/$defs/a", "#/$defs", "#/~2", "#/properties/a", "http://localhost/", "", "a"]

_NASTY_REGEXES = [
    *(
        "",
        "(",
        "[",
        "a{",
        "*",
        "\\",
        "\\1",
        "(?=a)b",
        "(?<n>a)",
        "\\p{L}+",
        "\\x{110000}",
        "[z-a]",
        "[^\\x00-\\U0010ffff]",
    ),
    *("(a+)+$", "(a|a)*", "(a*)*b", "a{1000}", "a{100000}", "((a{99}){99}){99}", "(a{0,50}){0,50}", "(?i)ß", "\\u0000"),
    *("(" * 200 + ")" * 200, "(" * 30_000, "a|" * 5000, ".*" * 300, "[" + "a-z" * 3000 + "]"),
]
REGEXES = st.sampled_from(_NASTY_REGEXES) | st.text("abé()[]{}*+?|\\^$.,019-pnd", max_size=14)


def _keywords(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Values for each keyword, valid or not."""
    named = st.dictionaries(_NAMES, inner, max_size=3)
    several = st.lists(inner, max_size=3)
    return {
        "type": st.sampled_from(_TYPES),
        "const": _JSON,
        "enum": st.lists(_JSON, max_size=3),
        "properties": named,
        "required": st.lists(_NAMES, max_size=3),
        "additionalProperties": inner,
        "items": inner,
        "anyOf": several,
        "oneOf": several,
        "allOf": several,
        "not": inner,
        "$defs": named,
        "$ref": st.sampled_from(_REFERENCES),
        "pattern": REGEXES,
        "format": st.sampled_from(["date-time", "uuid", "ipv4", "none such"]),
        "uniqueItems": st.booleans(),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _NUMBERS),
        **dict.fromkeys(("minimum", "exclusiveMinimum", "maximum", "multipleOf"), _NUMBERS),
    }


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = [st.tuples(st.just(keyword), values) for keyword, values in _keywords(inner).items()]
    return st.lists(st.one_of(pairs), max_size=4).map(dict)


_DEPTHS = st.sampled_from([10, 63, 64, 65, 127, 500, 20_000])
_NASTY_SCHEMAS = [
    *("", "{", "[]", "null", "true", "false", "0", '"a"', "{}", "nul", "\0", '{"type":"object"}{}', '{"a":1,"a":2}'),
    '{"$ref":"#"}',
    '{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"}',
    '{"const":"\\ud800"}',
    '{"enum":[1e999]}',
    f'{{"minLength":{"9" * 5000}}}',
    json.dumps({"enum": [f"choice {number}" for number in range(3000)]}),
    json.dumps({"type": "object", "properties": {f"p{number}": {} for number in range(2000)}}),
    json.dumps({"type": "array", "minItems": 300, "items": {"type": "array", "minItems": 300}}),
    json.dumps({"type": "string", "minLength": 1900}),
]
_DEEP_SCHEMAS = (
    _DEPTHS.map(lambda depth: '{"items":' * depth + "{}" + "}" * depth)
    | _DEPTHS.map(lambda depth: '{"anyOf":[' * depth + "{}" + "]}" * depth)
    | _DEPTHS.map(lambda depth: '{"const":' + "[" * depth + "]" * depth + "}")
)
JSON_SCHEMAS = (
    st.recursive(st.booleans() | _JSON, _objects, max_leaves=5).map(json.dumps)
    | _objects(_objects(st.booleans())).map(json.dumps)
    | st.sampled_from(_NASTY_SCHEMAS)
    | _DEEP_SCHEMAS
)

_NASTY_GRAMMARS = [
    *("", "root", "root ::=", 'root ::= "a', "root ::= [", "root ::= [a", "root ::= x", "x ::= y", "::=", "#", "\0"),
    *('root ::= "\\x"', 'root ::= "\\uD800"', "root ::= [^\\x00-\\U0010FFFF]", "root ::= [z-a]", "root ::= ()"),
    *("root ::= root", 'root ::= root "a" | "a"', "root ::= a\na ::= b\nb ::= a", 'root ::= (("a"*)*)*'),
    *('root ::= "a"{0}', 'root ::= "a"{5,2}', 'root ::= "a"{1000000}', 'root ::= (("a"{99}){99}){99}', "root ::= .*"),
    "root ::= " + "(" * 20_000,
    "root ::= " + "(" * 200 + '"a"' + ")" * 200,
    "root ::= " + " | ".join(['"a"'] * 3000),
    "root ::= r0\n" + "\n".join(f"r{number} ::= r{number + 1} r{number + 1}" for number in range(60)) + '\nr60 ::= "a"',
    'root ::= s\ns ::= s s s | s s | "a" | ""',
    'root ::= "a" # ' + "x" * 5000,
]
_GRAMMAR_PARTS = [
    "root",
    " ::= ",
    "::=",
    '"a"',
    '"',
    "[a-z]",
    "[^",
    "]",
    "(",
    ")",
    "*",
    "+",
    "?",
    "|",
    "{2}",
    "{1,",
    "\n",
]
_GRAMMAR_PARTS += ["x", "\\", "#", " ", "é", ".", "\\u0041", "<[1]>", "!"]
GRAMMARS = (
    st.sampled_from(_NASTY_GRAMMARS)
    | st.lists(st.sampled_from(_GRAMMAR_PARTS), max_size=12).map("".join)
    | st.lists(st.sampled_from(_GRAMMAR_PARTS), max_size=8).map(lambda parts: "root ::= " + "".join(parts))
)
