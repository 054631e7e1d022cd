r"""Parses a regular expression into a syntax tree that can be written for every engine.

There is one dialect for all engines: ECMA-262 with the flag u, as JSON Schema recommends. `\d`, `\w` and `\s` match
ASCII only, and the dot matches any character except a line break. Syntax that libraries interpret differently from each
other is refused.
"""

import re

from doherty_engine.constraints._characters import (
    ANY,
    CLASSES,
    LAST,
    NO_LINE_BREAK,
    SURROGATES,
    Ranges,
    complement,
    merge,
    points,
)
from doherty_engine.constraints._pattern import (
    Alternatives,
    Anchor,
    AnyCase,
    Characters,
    Pattern,
    PatternError,
    PatternUnsupportedError,
    Repetition,
    Series,
)

_MAX_DEPTH = 64
_MAX_SIZE = 65_536
"""The maximum number of characters in an expression after all repetitions are written out."""
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_REPEAT = re.compile(r"\{(\d{1,5})(?:(,)(\d{1,5})?)?\}")
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(-[a-zA-Z]*)?([:)])")
_NAMED_GROUP = re.compile(r"\(\?P?<[A-Za-z_]\w*>", re.ASCII)
_PROPERTY = re.compile(r"[pP](?:\{[A-Za-z0-9_=^ -]+\}|[A-Z])")
_CODES = (
    re.compile(r"x([0-9A-Fa-f]{2})"),
    re.compile(r"u([0-9A-Fa-f]{4})"),
    re.compile(r"U([0-9A-Fa-f]{8})"),
    re.compile(r"[uxU]\{([0-9A-Fa-f]{1,8})\}"),
)
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})")
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "v": "\v", "f": "\f", "a": "\a", "0": "\0"}


def read_pattern(text: str) -> Pattern:
    """Parses an expression.

    Raises:
        PatternError: It is invalid, ambiguous or too large.
        PatternUnsupportedError: It uses a feature that grammars do not support.
    """
    return _PatternReader(text).read()


class _PatternReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0

    def read(self) -> Pattern:
        pattern, size = self._alternatives(dot=NO_LINE_BREAK)
        if self._position < len(self._text):
            raise self._error("unmatched closing parenthesis")
        if size > _MAX_SIZE:
            raise PatternError(f"with its repetitions written out it has more than {_MAX_SIZE} characters")
        _check_anchors(pattern, at_start=True, at_end=True)
        return pattern

    def _alternatives(self, dot: Ranges) -> tuple[Pattern, int]:
        """Parses up to the end of a group; returns the tree, and its size as `_MAX_SIZE` counts it."""
        items: list[Pattern] = []
        size = 0
        while True:
            item, more = self._series(dot)
            items.append(item)
            size += more
            if not self._accept("|"):
                return items[0] if len(items) == 1 else Alternatives(tuple(items)), size

    def _series(self, dot: Ranges) -> tuple[Pattern, int]:
        items: list[Pattern] = []
        size = 0
        while self._position < len(self._text) and self._text[self._position] not in "|)":
            flags = _FLAGS.match(self._text, self._position) if self._text.startswith("(?", self._position) else None
            if flags is not None and flags[3] == ")":  # the flags apply to the end of the group
                self._position = flags.end()
                dot, any_case = self._read_flags(flags, dot)
                rest, more = self._alternatives(dot)
                items.append(AnyCase(rest) if any_case else rest)
                return Series(tuple(items)), size + more
            item, more = self._repeated(*self._item(dot))
            items.append(item)
            size += more
        return items[0] if len(items) == 1 else Series(tuple(items)), size

    def _item(self, dot: Ranges) -> tuple[Pattern, int]:
        character = self._text[self._position]
        if character == "(":
            return self._group(dot)
        self._position += 1
        match character:
            case "[":
                return self._class(), 1
            case ".":
                return Characters(dot), 1
            case "^" | "$":
                return Anchor(character), 0
            case "\\":
                return self._escape()
            case "*" | "+" | "?" | "{":
                self._position -= 1
                raise self._error("there is nothing to repeat; for a literal character put a backslash before it")
            case _:
                code = ord(character)
                if code in SURROGATES:
                    raise PatternError(f"{character!a} is not a character")
                return Characters(((code, code),)), 1

    def _group(self, dot: Ranges) -> tuple[Pattern, int]:
        if self._text.startswith(("(?=", "(?!", "(?<=", "(?<!"), self._position):
            raise PatternUnsupportedError("look-ahead and look-behind are not supported")
        flags = _FLAGS.match(self._text, self._position)
        named = _NAMED_GROUP.match(self._text, self._position)
        any_case = False
        if flags is not None:
            self._position = flags.end()
            dot, any_case = self._read_flags(flags, dot)
        elif named is not None:
            self._position = named.end()
        elif self._text.startswith("(?", self._position):
            raise self._error("a group cannot start like this")
        else:
            self._position += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PatternError(f"its groups are nested more than {_MAX_DEPTH} deep")
        item, size = self._alternatives(dot)
        if not self._accept(")"):
            raise self._error("a group is not closed")
        self._depth -= 1
        return AnyCase(item) if any_case else item, size

    def _read_flags(self, flags: re.Match[str], dot: Ranges) -> tuple[Ranges, bool]:
        """Interprets flags; returns what the dot matches, and whether letters match both cases."""
        if flags[0] == "(?)":
            raise self._error("a group cannot start like this")
        if flags[2] or set(flags[1]) - {"i", "s"}:
            raise PatternUnsupportedError(f"only the flags i and s are supported, not {flags[0]!r}")
        return ANY if "s" in flags[1] else dot, "i" in flags[1]

    def _repeated(self, item: Pattern, size: int) -> tuple[Pattern, int]:
        times = self._times()
        if times is None:
            return item, size
        if isinstance(item, Anchor):
            raise self._error("an anchor cannot be repeated")
        self._accept("?")  # greedy and lazy repetitions match the same texts as a whole
        minimum, maximum = times
        return Repetition(item, minimum, maximum), max(1, size) * max(1, minimum + 1 if maximum is None else maximum)

    def _times(self) -> tuple[int, int | None] | None:
        """Parses a repetition; returns its minimum and maximum, or None if there is no repetition."""
        sign = self._text[self._position : self._position + 1]
        if sign in _SIGNS:
            self._position += 1
            return _SIGNS[sign]
        if sign != "{":
            return None
        bounds = _REPEAT.match(self._text, self._position)
        if bounds is None:
            raise self._error("a repetition is {2}, {2,} or {2,5}; for a literal brace put a backslash before it")
        self._position = bounds.end()
        low, comma, high = bounds.groups()
        if high is not None and int(high) < int(low):
            raise PatternError(f"it repeats something {low} to {high} times")
        return int(low), None if comma and high is None else int(high or low)

    def _escape(self) -> tuple[Pattern, int]:
        letter = self._text[self._position : self._position + 1]
        match letter:
            case "A" | "z" | "Z":
                self._position += 1
                return Anchor("^" if letter == "A" else "$"), 0
            case "b" | "B":
                raise PatternUnsupportedError(f"the word boundary \\{letter} is not supported")
            case "k":
                raise PatternUnsupportedError("references to groups are not supported")
            case _ if letter in "123456789" and letter:
                raise PatternUnsupportedError("references to groups are not supported")
            case _:
                return self._set_escape() or Characters(points(self._character_escape())), 1

    def _set_escape(self) -> Characters | None:
        r"""Parses the escape of a set, such as `\d`, after its backslash; None if it is another escape."""
        letter = self._text[self._position : self._position + 1]
        if letter in CLASSES:
            self._position += 1
            return Characters(CLASSES[letter])
        named = _PROPERTY.match(self._text, self._position)
        if named is None:
            return None
        self._position = named.end()
        return Characters((), (f"\\{named[0]}",))

    def _character_escape(self) -> str:
        start = self._position
        for form in _CODES:
            code = form.match(self._text, start)
            if code is None:
                continue
            self._position = code.end()
            return self._character(int(code[1], 16), code[0])
        letter = self._text[start : start + 1]
        self._position += 1
        if letter in _CONTROLS and letter:
            return _CONTROLS[letter]
        if letter == "c" and self._text[start + 1 : start + 2].isalpha() and self._text[start + 1].isascii():
            self._position += 1
            return chr(ord(self._text[start + 1]) % 32)
        if letter and not letter.isalnum():
            return letter
        raise PatternError(f"the escape \\{letter} at character {start} is invalid")

    def _character(self, point: int, escape: str) -> str:
        low = _LOW_SURROGATE.match(self._text, self._position)
        if 0xD800 <= point < 0xDC00 and low is not None:  # noqa: PLR2004 - the first half of a pair
            self._position = low.end()
            point = 0x10000 + ((point - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if point > LAST or point in SURROGATES:
            raise PatternError(f"{escape!a} is not a character")
        return chr(point)

    def _class(self) -> Characters:
        negated = self._accept("^")
        ranges: list[tuple[int, int]] = []
        properties: list[str] = []
        if self._text[self._position : self._position + 1] == "]":
            raise self._error("a character class cannot be empty; write \\] for a literal bracket")
        while not self._accept("]"):
            first = self._class_item()
            if isinstance(first, Characters):
                ranges += first.ranges
                properties += first.properties
                continue
            last = first
            if self._text.startswith("-", self._position) and not self._text.startswith("-]", self._position):
                self._position += 1
                end = self._class_item()
                if isinstance(end, Characters) or end < first:
                    raise self._error("a character range has no end, or ends before it begins")
                last = end
            ranges.append((ord(first), ord(last)))
        merged = merge(ranges)
        if properties:
            return Characters(merged, tuple(properties), negated)
        return Characters(complement(merged) if negated else complement(complement(merged)))

    def _class_item(self) -> str | Characters:
        if self._position >= len(self._text):
            raise self._error("a character class is not closed")
        if self._text.startswith(("[", "&&", "--", "~~", "||"), self._position):
            raise self._error("libraries interpret this differently inside a class; put a backslash before it")
        character = self._text[self._position]
        self._position += 1
        if character != "\\":
            return character
        if self._accept("b"):
            return "\b"
        return self._set_escape() or self._character_escape()

    def _accept(self, token: str) -> bool:
        is_next = self._text.startswith(token, self._position)
        self._position += len(token) if is_next else 0
        return is_next

    def _error(self, reason: str) -> PatternError:
        return PatternError(f"at character {self._position}: {reason}")


def _check_anchors(pattern: Pattern, *, at_start: bool, at_end: bool) -> None:
    """Refuses `^` except at the start and `$` except at the end: libraries ignore them, though nothing could match."""
    match pattern:
        case Anchor(sign):
            if not (at_start if sign == "^" else at_end):
                raise PatternUnsupportedError(f"{sign} is only supported at the {'start' if sign == '^' else 'end'}")
        case Series(items):
            others = [place for place, item in enumerate(items) if not isinstance(item, Anchor)] or [-1]
            for place, item in enumerate(items):
                start, end = place <= others[0] or others == [-1], place >= others[-1]
                _check_anchors(item, at_start=at_start and start, at_end=at_end and end)
        case Alternatives(items):
            for item in items:
                _check_anchors(item, at_start=at_start, at_end=at_end)
        case Repetition(item, _, _):
            _check_anchors(item, at_start=False, at_end=False)
        case AnyCase(item):
            _check_anchors(item, at_start=at_start, at_end=at_end)
        case Characters():
            pass
