"""Texts that fit a constraint, found with llguidance, which the development machines have."""

import llguidance

from doherty_engine import Constraint, Grammar, InvalidInputError, JsonSchema, Regex, UnsupportedError
from doherty_engine.constraints import ConstraintCompiler

_END = 256
"""The byte tokenizer's end-of-sequence token; below it stand the bytes."""


OF_SCHEMA = "# JSON without white space: "
"""Begins the grammar that the stand-in for xgrammar makes of a schema."""


def compile_form(kind: str, text: str) -> str:
    """The constraint as llguidance takes it; raises RuntimeError as xgrammar does."""
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
    """The first text that fits, without needless spaces."""
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), compile_form(kind, text), log_level=0)
    found = b""
    while not matcher.is_accepting():
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(_END) if mask >> byte & 1]
        byte = min(allowed, key=lambda one: (bytes([one]).isspace(), one))
        matcher.consume_tokens([byte])
        found += bytes([byte])
    return found.decode()
