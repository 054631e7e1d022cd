r"""Parses a grammar in GBNF.

llama.cpp's own GBNF parser must never see a caller's text: deep grammars overflow its stack, which ends the process,
and ambiguous ones make it hang. This parser limits depth and size. `_lark` translates the result for llguidance.

llguidance has a converter, too (`llguidance.gbnf_to_lark`). In 1.9.1 its dot does not match a line break, and it writes
\u00e9 and \U0001F600 without their zeros, which llguidance's own lexer then refuses.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from doherty_engine.constraints._characters import LAST, SURROGATES

_MAX_DEPTH = 24
_MAX_RULES = 256
"""llguidance's stack overflows on a chain of 10,000 rules."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_REPEAT = re.compile(r"\{\s*(\d{1,5})\s*(?:(,)\s*(\d{1,5})?\s*)?\}")
_INLINE_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class GbnfError(ValueError):
    """The grammar is invalid or too large; the message says why."""


@dataclass(frozen=True, slots=True)
class RegexNode:
    """A literal, a character class or a dot, written as a regular expression."""

    pattern: str


@dataclass(frozen=True, slots=True)
class RuleName:
    name: str


@dataclass(frozen=True, slots=True)
class Concatenation:
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    item: "Node"
    suffix: str
    """The repetition operator; Lark and GBNF use the same syntax."""


Node = RegexNode | RuleName | Concatenation | Alternation | Repeat


def read_gbnf(gbnf: str) -> dict[str, Node]:
    """Parses a grammar, and checks that all rules exist to which it refers; returns the rules by name.

    Raises:
        GbnfError: It is invalid, has too many rules, or is nested too deeply.
    """
    rules = _GbnfReader(gbnf).read()
    if "root" not in rules:
        raise GbnfError("it has no rule named root")
    if len(rules) > _MAX_RULES:
        raise GbnfError(f"it has more than {_MAX_RULES} rules")
    for name, body in rules.items():
        for reference in references(body):
            if reference not in rules:
                raise GbnfError(f"the rule {name} refers to {reference}, which does not exist")
    return rules


def references(node: Node) -> Iterator[str]:
    """The names of the rules that a node refers to."""
    match node:
        case RuleName(name):
            yield name
        case Concatenation(items) | Alternation(items):
            for item in items:
                yield from references(item)
        case Repeat(item, _):
            yield from references(item)
        case RegexNode():
            pass


class _GbnfReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    def read(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        self._skip(_SPACE)
        while self._position < len(self._text):
            name = self._expect(_NAME, "the name of a rule")
            self._skip(_INLINE_SPACE)
            if not self._accept("::="):
                raise self._error("::=")
            self._skip(_SPACE)
            rules[name] = self._choice(nested=False)
            if self._position < len(self._text) and self._text[self._position] not in "\r\n":
                raise self._error("the end of the line")
            self._skip(_SPACE)
        return rules

    def _choice(self, *, nested: bool) -> Node:
        items = [self._sequence(nested=nested)]
        while self._accept("|"):
            self._skip(_SPACE)
            items.append(self._sequence(nested=nested))
        return items[0] if len(items) == 1 else Alternation(tuple(items))

    def _sequence(self, *, nested: bool) -> Node:
        items: list[Node] = []
        space = _SPACE if nested else _INLINE_SPACE
        while (item := self._item()) is not None:
            self._skip(space)
            items.append(self._repeated(item))
            self._skip(space)
        return items[0] if len(items) == 1 else Concatenation(tuple(items))

    def _item(self) -> Node | None:
        if self._accept('"'):
            return RegexNode("".join(quote(character) for character in self._characters('"')))
        if self._accept("["):
            return self._character_class()
        if self._accept("("):
            return self._group()
        if self._accept("."):
            return RegexNode("(?s:.)")
        if self._text[self._position : self._position + 1] in {"<", "!"}:
            raise GbnfError("it names tokens with <...>, which this engine does not support")
        name = _NAME.match(self._text, self._position)
        if name is None:
            return None
        self._position = name.end()
        return RuleName(name[0])

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise GbnfError(f"its groups are nested more than {_MAX_DEPTH} deep")
        self._skip(_SPACE)
        group = self._choice(nested=True)
        self._skip(_SPACE)
        if not self._accept(")"):
            raise self._error(")")
        self._depth -= 1
        return group

    def _repeated(self, item: Node) -> Node:
        for suffix in "*+?":
            if self._accept(suffix):
                return Repeat(item, suffix)
        if self._text[self._position : self._position + 1] != "{":
            return item
        bounds = _REPEAT.match(self._text, self._position)
        if bounds is None:
            raise self._error("a repetition like {2}, {2,} or {2,5}, with at most five digits")
        self._position = bounds.end()
        low, comma, high = bounds.groups()
        if high is not None and int(high) < int(low):
            raise GbnfError(f"it repeats something {low} to {high} times")
        return Repeat(item, f"{{{low}{',' if comma else ''}{high or ''}}}")

    def _character_class(self) -> Node:
        negated = "^" if self._accept("^") else ""
        ranges: list[str] = []
        while not self._accept("]"):
            first = last = self._character()
            if self._text[self._position : self._position + 1] == "-" and not self._text.startswith(
                "-]", self._position
            ):
                self._position += 1
                last = self._character()
            if last < first:
                raise GbnfError("a character range ends before it begins")
            ranges.append(f"{quote(first)}-{quote(last)}")
        if not ranges:
            raise GbnfError("a character class is empty")
        return RegexNode(f"[{negated}{''.join(ranges)}]")

    def _characters(self, end: str) -> Iterator[str]:
        while not self._accept(end):
            yield self._character()

    def _character(self) -> str:
        character = self._next()
        if character != "\\":
            return character
        escape = self._next()
        if escape in '"\\[]-^':
            return escape
        if escape in _ESCAPES:
            return _ESCAPES[escape]
        digits = _HEX_DIGITS.get(escape, 0)
        code = re.compile(f"[0-9A-Fa-f]{{{digits}}}").match(self._text, self._position) if digits else None
        if code is None:
            raise GbnfError(f"the escape \\{escape} is invalid")
        self._position = code.end()
        point = int(code[0], 16)
        if point > LAST or point in SURROGATES:
            raise GbnfError(f"the escape \\{escape}{code[0]} is not a character")
        return chr(point)

    def _next(self) -> str:
        if self._position >= len(self._text):
            raise GbnfError("it ends inside a literal or a character class")
        self._position += 1
        return self._text[self._position - 1]

    def _accept(self, token: str) -> bool:
        is_next = self._text.startswith(token, self._position)
        self._position += len(token) if is_next else 0
        return is_next

    def _expect(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._position)
        if match is None:
            raise self._error(what)
        self._position = match.end()
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._position)
        if match is not None:
            self._position = match.end()

    def _error(self, expected: str) -> GbnfError:
        line = self._text.count("\n", 0, self._position) + 1
        return GbnfError(f"line {line}: expected {expected}")


def quote(character: str) -> str:
    """Writes a character as a regular expression that matches only it; also valid inside a character class."""
    return f"\\x{{{ord(character):x}}}"
