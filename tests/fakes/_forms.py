"""Texts that satisfy a constraint, found with llguidance, which is installed on the development machines."""

import llguidance

from doherty_engine import Constraint, Grammar, InvalidInputError, JsonSchema, Regex, UnsupportedError
from doherty_engine.constraints import ConstraintCompiler

_END = 256
"""The end-of-sequence token of the byte tokenizer; lower ids are bytes."""


OF_SCHEMA = "# JSON without white space: "
"""The beginning of the grammar that the fake of xgrammar creates from a schema."""


def compile_form(kind: str, text: str) -> str:
    """Returns the constraint for llguidance. Raises RuntimeError, as xgrammar does."""
    constraints: dict[str, type[JsonSchema | Regex | Grammar]] = {
        "json": JsonSchema,
        "regex": Regex,
        "grammar": Grammar,
    }
    if kind == "grammar" and text.startswith(OF_SCHEMA):
        kind, text = "json", text.removeprefix(OF_SCHEMA)
    constraint: Constraint = constraints[kind](text)
    try:
        return ConstraintCompiler(extra="cpu").compile(constraint).grammar.removeprefix("%llguidance {}\n")
    except (InvalidInputError, UnsupportedError) as error:
        raise RuntimeError(f"[xgrammar] {error}\nat line 1") from error


def fitting_text(kind: str, text: str) -> str:
    """Returns the first text that satisfies the constraint, without unnecessary spaces."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), compile_form(kind, text), log_level=0)
    written = b""
    while not matcher.is_accepting():
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(_END) if mask >> byte & 1]
        byte = min(allowed, key=lambda candidate: (bytes([candidate]).isspace(), candidate))
        matcher.consume_tokens([byte])
        written += bytes([byte])
    return written.decode()
