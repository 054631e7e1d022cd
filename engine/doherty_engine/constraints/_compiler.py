"""Compiles constraints to grammars for llguidance, which llama.cpp and vLLM use, and checks answers against them.

Every constraint is compiled here, within bounds of our own, before an engine sees it. So a constraint that is invalid,
unsatisfiable or too expensive is refused with the caller's field. In addition, llama.cpp silently drops a grammar that
llguidance refuses or gives up on, and continues without it. There, a `CompiledConstraint` checks the answer.
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
from doherty_engine.constraints._schema_keywords import Dialect
from doherty_engine.constraints._schema_values import Json

_COMPACT: Json = {"whitespace_flexible": False}
"""No white space between the parts of a value: by default it has no bound, and each token of it costs a step."""
_DIALECT = Dialect(
    write_rust, "r", FORMATS, max_pattern_size=32_768, bounds_length=True, options={"x-guidance": _COMPACT}
)
_LEXER_FUEL = 100_000
"""A tenth of llguidance's default, because llama.cpp compiles a grammar between two steps while all requests wait."""
_MAX_REASON_CHARACTERS = 300
_CALLERS_FAULT = re.compile(r"[Uu]nsatisfiable|Regex is empty")
_LOCATION = re.compile(r"^(?:at )?\d+\(\d+\): |failed to compile JSON schema: |\n +\d+ \| .*|<state>.*", re.DOTALL)
"""Positions in the Lark grammar that llguidance puts into its messages; the caller has never seen that grammar."""


class ConstraintCompiler:
    """Compiles constraints with llguidance; thread-safe."""

    def __init__(self, *, extra: str) -> None:
        """Imports llguidance.

        Args:
            extra: The extra of this distribution that installs llguidance; error messages name it.

        Raises:
            EngineSetupError: llguidance is not installed.
        """
        self._llguidance = import_optional("llguidance", "Compiling constraints", extra=extra)
        # A constraint applies to the bytes of an answer, so the model's own tokens are not needed to check it.
        self._bytes = self._llguidance.LLTokenizer("byte")
        self._limits = self._llguidance.LLParserLimits(initial_lexer_fuel=_LEXER_FUEL)

    def compile(self, constraint: Constraint) -> "CompiledConstraint":
        """Compiles a constraint. Blocks; at most TRANSLATIONS threads should call it at the same time.

        Raises:
            InvalidInputError: The constraint is invalid, unsatisfiable or too large.
            UnsupportedError: It uses a feature that llguidance does not support.
        """
        field, lark = _translate(constraint)
        matcher = self._llguidance.LLMatcher(self._bytes, lark, log_level=0, limits=self._limits)
        if not matcher.is_error():
            matcher.compute_bitmask()  # compiling does not check whether any first token is possible
            if matcher.is_stopped() and not matcher.is_accepting():
                raise InvalidInputError(field, "no answer can satisfy it, or it is too complex")
            return CompiledConstraint(field, lark, matcher)
        reason = _reason(matcher.get_error())
        if _CALLERS_FAULT.search(reason):
            raise InvalidInputError(field, f"no answer can satisfy it: {reason}")
        raise UnsupportedError(field, f"this engine cannot compile it: {reason}")

    def supports(self, tokenizer: Any) -> bool:
        """Whether llguidance supports this tokenizer, which is an object of transformers."""
        hugging_face = import_module("llguidance.hf")
        try:
            hugging_face.from_tokenizer(tokenizer)
        except ValueError:  # raised for unknown kinds of tokenizers
            return False
        return True


class CompiledConstraint:
    """A constraint that is compiled for one answer."""

    def __init__(self, field: str, lark: str, matcher: Any) -> None:
        self._field = field
        self.grammar = f"%llguidance {{}}\n{lark}"
        """The grammar for llama.cpp and vLLM; the first line says that the others are Lark."""
        self._matcher = matcher

    def advance(self, text: str) -> None:
        """Checks the next text of the answer.

        Raises:
            InvalidInputError: The text violates the constraint, so the engine must have dropped the grammar.
        """
        if text and not self._matcher.consume_tokens(list(text.encode())):
            raise self._dropped()

    def check_end(self) -> None:
        """Checks that the answer may end here; raises the same error as `advance`."""
        if not self._matcher.is_accepting():
            raise self._dropped()

    def _dropped(self) -> InvalidInputError:
        return InvalidInputError(self._field, "it became too complex to enforce before the answer ended")


def _translate(constraint: Constraint) -> tuple[str, str]:
    """Translates a constraint to a Lark grammar; returns the path of its field and the grammar."""
    match constraint:
        case JsonSchema(schema):
            return "constraint.json_schema", f"start: %json {SchemaWriter(schema, _DIALECT).write()}"
        case Regex(pattern):
            return "constraint.regex", f"start: /{write_rust(read_regex(pattern))}/"
        case Grammar(gbnf):
            return "constraint.grammar", write_lark(read_grammar(gbnf))
        case Choices(choices):
            check_size("constraint.choices", "".join(choices))
            return "constraint.choices", f"start: /{'|'.join(''.join(map(quote, choice)) for choice in choices)}/"


def _reason(error: str) -> str:
    return " ".join(_LOCATION.sub("", error).split())[:_MAX_REASON_CHARACTERS]
