"""Makes a grammar for llguidance, inside an engine, out of a constraint, and holds the answer against it.

Each is compiled here before the engine sees it, with bounds of our own: what cannot be read, fulfilled or afforded is
told with the caller's field. llama.cpp moreover drops a grammar that llguidance refuses, or gives up on halfway, and
generates on without a word: there a `Form` follows the answer.
"""

import json
import re
from importlib import import_module
from types import ModuleType
from typing import Any

from doherty_engine._errors import EngineSetupError, InvalidInputError, UnsupportedError
from doherty_engine._requests import Choices, Constraint, Grammar, JsonSchema, Regex
from doherty_engine.constraints._gbnf import GbnfError, quote, read_gbnf
from doherty_engine.constraints._lark import write_lark

_MAX_CHARACTERS = 32_768
_LEXER_FUEL = 100_000
"""A tenth of llguidance's own bound: llama.cpp compiles a grammar between two steps, and all requests wait for it."""
_MAX_REASON_CHARACTERS = 300
_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): |\n +\d+ \| .*|<state>.*", re.DOTALL)
"""Where in the Lark that we wrote llguidance found an error, which says nothing to the caller."""
_PATTERN_PARTS = re.compile(r"\\/|\\?[\r\n]|/|\\.", re.DOTALL)
_ENDS_PATTERN = {"/": r"\x2f", "\n": r"\n", "\r": r"\r"}
"""What would end a regular expression in Lark, and how else it is written."""


class FormCompiler:
    """Compiles constraints."""

    def __init__(self, *, extra: str) -> None:
        """`extra` is this distribution's that has llguidance; raises EngineSetupError if that is not installed."""
        self._llguidance = _import_llguidance(extra)
        # The form of an answer is a matter of its bytes, so the model's own tokens are not needed to check it.
        self._bytes = self._llguidance.LLTokenizer("byte")
        self._limits = self._llguidance.LLParserLimits(initial_lexer_fuel=_LEXER_FUEL)

    def compile(self, constraint: Constraint) -> "Form":
        """Makes the form.

        Raises:
            InvalidInputError: the constraint cannot be read, cannot be fulfilled or is too large.
            UnsupportedError: it uses what llguidance cannot do.
        """
        field, lark = _translate(constraint)
        matcher = self._llguidance.LLMatcher(self._bytes, lark, log_level=0, limits=self._limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # finds out what compiling leaves open: whether any answer can begin
            if matcher.is_stopped() and not matcher.is_accepting():
                raise InvalidInputError(field, "no answer can fulfil it, or it is too complex")
            return Form(field, lark, matcher)
        reason = _reason(matcher.get_error())
        if "Unimplemented" in reason or "not supported" in reason:
            raise UnsupportedError(field, f"this engine cannot do it: {reason}")
        raise InvalidInputError(field, f"it cannot be compiled: {reason}")

    def suits(self, tokenizer: Any) -> bool:
        """Whether llguidance can bind a model with this tokenizer, which is one of transformers'."""
        hugging_face = import_module("llguidance.hf")
        try:
            hugging_face.from_tokenizer(tokenizer)
        except ValueError:  # a kind that it does not know
            return False
        return True


class Form:
    """The form that one answer must have."""

    def __init__(self, field: str, lark: str, matcher: Any) -> None:
        self._field = field
        self.grammar = f"%llguidance {{}}\n{lark}"
        """As llama.cpp and vLLM take it: the first line tells that the others are Lark."""
        self._matcher = matcher

    def follow(self, text: str) -> None:
        """Takes the next text of the answer.

        Raises:
            InvalidInputError: it does not have the form, so the engine has dropped the grammar.
        """
        if text and not self._matcher.consume_tokens(list(text.encode())):
            raise self._dropped()

    def end(self) -> None:
        """Takes the end that the model gave the answer; raises as `follow` does."""
        if not self._matcher.is_accepting():
            raise self._dropped()

    def _dropped(self) -> InvalidInputError:
        return InvalidInputError(self._field, "it turned out too complex to be followed to the end of the answer")


def _translate(constraint: Constraint) -> tuple[str, str]:
    """The path of the constraint's field, and the constraint as a grammar in Lark."""
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", f"start: %json {_read_schema(schema)}"
        case Regex(pattern):
            _check_size("constraint.regex", pattern)
            escaped = _PATTERN_PARTS.sub(lambda part: _ENDS_PATTERN.get(part[0][-1], part[0]), pattern)
            return "constraint.regex", f"start: /{escaped}/"
        case Grammar(gbnf):
            _check_size("constraint.grammar", gbnf)
            try:
                return "constraint.grammar", write_lark(read_gbnf(gbnf))
            except GbnfError as error:
                raise InvalidInputError("constraint.grammar", f"it cannot be read: {error}") from error
        case Choices(choices):
            _check_size("constraint.choices", "".join(choices))
            return "constraint.choices", f"start: /{'|'.join(''.join(map(quote, choice)) for choice in choices)}/"


def _read_schema(schema: str) -> str:
    field = "constraint.json_schema"
    _check_size(field, schema)
    try:
        value = json.loads(schema)
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(field, f"it is not JSON: {error}") from error
    if not isinstance(value, dict | bool):
        raise InvalidInputError(field, "a JSON Schema is an object, true or false")
    return text


def _reason(error: str) -> str:
    return " ".join(_PLACE.sub("", error).split())[:_MAX_REASON_CHARACTERS]


def _check_size(field: str, text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters, and at most {_MAX_CHARACTERS} are taken")


def _import_llguidance(extra: str) -> ModuleType:
    try:
        return import_module("llguidance")
    except ModuleNotFoundError as error:
        raise EngineSetupError(
            f"Constraints need the package llguidance; run `pip install 'doherty[{extra}]'`."
        ) from error
