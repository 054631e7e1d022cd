"""Makes a grammar for llguidance, inside an engine, out of a constraint, and holds the answer against it.

Each is compiled here before the engine sees it, with bounds of our own: what cannot be read, fulfilled or afforded is
told with the caller's field. llama.cpp moreover drops a grammar that llguidance refuses, or gives up on halfway, and
generates on without a word: there a `CompiledConstraint` follows the answer.
"""

import re
from importlib import import_module
from typing import Any

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine._optional import import_optional
from doherty_engine._requests import Choices, Constraint, Grammar, JsonSchema, Regex
from doherty_engine.constraints._fields import FORMATS, read_grammar, read_regex
from doherty_engine.constraints._gbnf import quote
from doherty_engine.constraints._lark import write_lark
from doherty_engine.constraints._limits import check_size
from doherty_engine.constraints._pattern_writers import write_rust
from doherty_engine.constraints._schema import SchemaWriter
from doherty_engine.constraints._schema_plain import Binding

_BINDING = Binding(write_rust, "r", FORMATS, most_patterns=32_768)
_LEXER_FUEL = 100_000
"""A tenth of llguidance's own bound: llama.cpp compiles a grammar between two steps, and all requests wait for it."""
_MAX_REASON_CHARACTERS = 300
_CALLERS_FAULT = re.compile(r"[Uu]nsatisfiable|Regex is empty")
_PLACE = re.compile(r"^(?:at )?\d+\(\d+\): |failed to compile JSON schema: |\n +\d+ \| .*|<state>.*", re.DOTALL)
"""Where in the Lark that we wrote llguidance found an error, which says nothing to the caller."""


class ConstraintCompiler:
    """Compiles constraints."""

    def __init__(self, *, extra: str) -> None:
        """`extra` is this distribution's that has llguidance; raises EngineSetupError if that is not installed."""
        self._llguidance = import_optional("llguidance", "Compiling constraints", extra=extra)
        # The form of an answer is a matter of its bytes, so the model's own tokens are not needed to check it.
        self._bytes = self._llguidance.LLTokenizer("byte")
        self._limits = self._llguidance.LLParserLimits(initial_lexer_fuel=_LEXER_FUEL)

    def compile(self, constraint: Constraint) -> "CompiledConstraint":
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
            return CompiledConstraint(field, lark, matcher)
        reason = _reason(matcher.get_error())
        if _CALLERS_FAULT.search(reason):
            raise InvalidInputError(field, f"no answer can fulfil it: {reason}")
        raise UnsupportedError(field, f"this engine cannot compile it: {reason}")

    def supports(self, tokenizer: Any) -> bool:
        """Whether llguidance can bind a model with this tokenizer, which is one of transformers'."""
        hugging_face = import_module("llguidance.hf")
        try:
            hugging_face.from_tokenizer(tokenizer)
        except ValueError:  # a kind that it does not know
            return False
        return True


class CompiledConstraint:
    """The form that one answer must have."""

    def __init__(self, field: str, lark: str, matcher: Any) -> None:
        self._field = field
        self.grammar = f"%llguidance {{}}\n{lark}"
        """As llama.cpp and vLLM take it: the first line tells that the others are Lark."""
        self._matcher = matcher

    def advance(self, text: str) -> None:
        """Takes the next text of the answer.

        Raises:
            InvalidInputError: it does not have the form, so the engine has dropped the grammar.
        """
        if text and not self._matcher.consume_tokens(list(text.encode())):
            raise self._dropped()

    def check_end(self) -> None:
        """Takes the end that the model gave the answer; raises as `follow` does."""
        if not self._matcher.is_accepting():
            raise self._dropped()

    def _dropped(self) -> InvalidInputError:
        return InvalidInputError(self._field, "it turned out too complex to be followed to the end of the answer")


def _translate(constraint: Constraint) -> tuple[str, str]:
    """The path of the constraint's field, and the constraint as a grammar in Lark."""
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", f"start: %json {SchemaWriter(schema, _BINDING).write()}"
        case Regex(pattern):
            return "constraint.regex", f"start: /{write_rust(read_regex(pattern))}/"
        case Grammar(gbnf):
            return "constraint.grammar", write_lark(read_grammar(gbnf))
        case Choices(choices):
            check_size("constraint.choices", "".join(choices))
            return "constraint.choices", f"start: /{'|'.join(''.join(map(quote, choice)) for choice in choices)}/"


def _reason(error: str) -> str:
    return " ".join(_PLACE.sub("", error).split())[:_MAX_REASON_CHARACTERS]
