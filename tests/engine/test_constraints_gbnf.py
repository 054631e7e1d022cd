"""GBNF grammars keep their meaning when they are rewritten for llguidance."""

import pytest
from llguidance import LLMatcher, LLTokenizer

from doherty_engine.constraints._gbnf import GbnfError, read_gbnf
from doherty_engine.constraints._lark import write_lark

BYTES = LLTokenizer("byte")

JSON = r"""
root  ::= value   # anything
value ::= object | array | string | number | ("true" | "null") ws
object ::=
  "{" ws (
     string ":" ws value
     ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def accepts(gbnf: str, text: str) -> bool:
    matcher = LLMatcher(BYTES, write_lark(read_gbnf(gbnf)), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return bool(matcher.consume_tokens(list(text.encode()))) and bool(matcher.is_accepting())


@pytest.mark.parametrize(
    ("gbnf", "yes", "no"),
    [
        (JSON, ['{"a": [1, -2.5, {"b": "x\\n\\u00e9é"}], "c": true}', "[]", "null "], ["01", "[1", '{"a" 1}', '"\t"']),
        ('root ::= "a" | [b-c]+ .', ["a", "bc\n", "bé"], ["b", "é", ""]),
        ('root ::= "(" root ")" | "x"', ["x", "((x))"], ["(x", "x)"]),
        ('root ::= sum\nsum ::= sum "+" [0-9]+ | [0-9]+', ["1+22+3"], ["1+", "+1"]),
        ('root ::= [a-z]+ "ing"', ["walking", "inging"], ["walk", "ing"]),
        ("root ::= [a-z-]+ [-+] [^-]", ["a-b+x", "--x"], ["a-b--", "a"]),
        ("root ::= [^\\n\\]]", ["é", "["], ["\n", "]"]),
        ('root ::= "é😀\\u00e9\\x41\\"\\\\/\\U0001F600"', ['é😀éA"\\/😀'], [""]),
        ('root ::= a a\na ::= "" | "b"', ["", "b", "bb"], ["bbb"]),
        ('root ::= "a"{2,3} "b"{2} "c"{1,} "d"?', ["aabbc", "aaabbccd"], ["abbc", "aabbbc", "aabbcdd"]),
        ('root ::= (("x" | ) "y")*', ["", "xyy"], ["x"]),
        ('\n# first\nroot::="a"#c\r\nunused ::= root "b"\n', ["a"], ["ab"]),
    ],
)
def test_a_grammar_keeps_its_meaning(gbnf: str, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not accepts(gbnf, text)] == []
    assert [text for text in no if accepts(gbnf, text)] == []


@pytest.mark.parametrize(
    ("gbnf", "reason"),
    [
        ("", "no rule named root"),
        ('root ::= "a', "ends inside a literal"),
        ("root ::= [a", "ends inside a literal or a character class"),
        ("root ::= []", "empty"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= other", "refers to other"),
        ('root ::= "a" )', "line 1: expected the end of the line"),
        ('root ::= ("a"', r"line 1: expected \)"),
        ('root = "a"', "line 1: expected ::="),
        ('root ::= "a"\n| "b"', "line 2: expected the name of a rule"),
        ('root ::= "\\q"', "escape"),
        ('root ::= "\\xZZ"', "escape"),
        ('root ::= "\\ud800"', "not a character"),
        ('root ::= "\\UFFFFFFFF"', "not a character"),
        ('root ::= "a"{3,2}', "3 to 2 times"),
        ('root ::= "a"{999999}', "at most five digits"),
        ("root ::= <think>", "names tokens"),
        ("root ::= " + "(" * 10_000, "nested"),
        ("".join(f'r{index} ::= "a"\n' for index in range(300)) + "root ::= r1", "more than 256 rules"),
    ],
)
def test_an_unreadable_grammar_is_refused(gbnf: str, reason: str) -> None:
    with pytest.raises(GbnfError, match=reason):
        read_gbnf(gbnf)
