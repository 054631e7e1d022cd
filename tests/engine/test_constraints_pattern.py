"""Regular expressions have the same dialect on every engine and in every field."""

import json
from collections.abc import Sequence

import pytest
from llguidance import LLMatcher, LLTokenizer

from doherty_engine import InvalidInputError, JsonSchema, Regex, UnsupportedError
from doherty_engine.constraints import ConstraintCompiler, write_for_xgrammar

BYTES = LLTokenizer("byte")
COMPILER = ConstraintCompiler(extra="cpu")


def matches(constraint: Regex | JsonSchema, text: str) -> bool:
    form = COMPILER.compile(constraint)
    try:
        form.advance(text)
        form.check_end()
    except InvalidInputError:
        return False
    return True


def matches_as_written_for_xgrammar(pattern: str, text: str) -> bool:
    """The expression that is written for xgrammar is simple enough for llguidance, too."""
    matcher = LLMatcher(BYTES, f"start: /{write_for_xgrammar(Regex(pattern))[2]}/", log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return bool(matcher.consume_tokens(list(text.encode()))) and bool(matcher.is_accepting())


def check_invalid(pattern: str) -> None:
    for compiling in (COMPILER.compile, write_for_xgrammar):
        with pytest.raises(InvalidInputError) as caught:
            compiling(Regex(pattern))
        assert caught.value.field == "constraint.regex"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"^\d{5}$", ["12345"], ["\U0001d7d9" * 5, "\U0001fbf1" * 5, "\u0661" * 5, "1234"]),
        (r"[\d\-]+\D", ["1-é", "1\u0663"], ["11"]),
        (r"\w\W", ["a-", "_é"], ["é-", "ab"]),
        (r"\s\S", ["\ta", " \N{NO-BREAK SPACE}"], ["\N{NO-BREAK SPACE}a", "  "]),
        (r"[^\D\s]", ["1"], ["a", " "]),
        (".", ["é", "😀"], ["\n", "\r", ""]),
        (r"(?s:.)[^a]", ["\né"], ["\na"]),
        ("a*?b+?c{1,2}?", ["bc", "aabbcc"], ["ac"]),
        (r"(?:a)(?P<x>b)(?<y>c)|", ["abc", ""], ["ab"]),
        (r"^a|b$", ["a", "b"], ["ab"]),
        (r"\x41\u0042\u{43}\U00000044\ud83d\ude00\t\cA", ["ABCD😀\t\x01"], ["ABCD"]),
        (r"[a\]\[-]{2}/", ["]-/", "[a/"], ["b]/"]),
    ],
)
def test_an_expression_has_the_same_meaning_everywhere(pattern: str, yes: Sequence[str], no: Sequence[str]) -> None:
    whole = JsonSchema(json.dumps({"type": "string", "pattern": f"^(?:{pattern})$"}))
    for text, expected in [*((text, True) for text in yes), *((text, False) for text in no)]:
        assert matches(Regex(pattern), text) is expected, text
        assert matches_as_written_for_xgrammar(pattern, text) is expected, text
        if "\x01" not in text:
            assert matches(whole, json.dumps(text, ensure_ascii=False)) is expected, text


@pytest.mark.parametrize(
    "pattern", ["a(?=b)", "(?<!a)b", r"(a)\1", r"\bword", "a^b", "(?m)^a", r"(?<n>a)\k<n>", r"(?:a$)b"]
)
def test_expressions_that_grammars_cannot_express_are_unimplemented(pattern: str) -> None:
    for compiling in (COMPILER.compile, write_for_xgrammar):
        with pytest.raises(UnsupportedError) as caught:
            compiling(Regex(pattern))
        assert caught.value.field == "constraint.regex"


@pytest.mark.parametrize(
    "pattern",
    [
        "(a",
        "a)",
        "[a",
        "[]",
        "[z-a]",
        "[a&&b]",
        "[[:alpha:]]",
        "a{2",
        "a{3,2}",
        "*a",
        "a++",
        "a\\",
        r"\q",
        "(?a",
        "(?)",
    ],
)
def test_wrong_or_ambiguous_expressions_are_invalid(pattern: str) -> None:
    check_invalid(pattern)


@pytest.mark.parametrize(
    "pattern", [r"\ud800", "^*", "(" * 100 + ")" * 100, "(a{1,1000}){1,1000}", "x" * 40_000], ids=lambda text: text[:12]
)
def test_expressions_that_are_not_text_or_too_large_are_invalid(pattern: str) -> None:
    check_invalid(pattern)


@pytest.mark.parametrize("pattern", [r"\p{L}", "(?i:a)", "[à-ÿ]{3}[Ā-ԯ]", "x?y" * 2_000])
def test_expressions_that_only_xgrammar_lacks_are_unimplemented(pattern: str) -> None:
    COMPILER.compile(Regex(pattern))
    with pytest.raises(UnsupportedError, match=r"not supported|at most"):
        write_for_xgrammar(Regex(pattern))
