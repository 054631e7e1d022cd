"""The part of xgrammar 0.1 that compiles grammars; an error is a RuntimeError."""

import json
import time
from enum import Enum
from typing import Any

from _forms import OF_SCHEMA, compile_form

ENDLESS = "endless"
"""A grammar that contains this word is compiled forever."""


class VocabType(Enum):
    """The encoding of tokens in a vocabulary."""

    RAW = 0
    BYTE_FALLBACK = 1
    BYTE_LEVEL = 2


class TokenizerInfo:
    """A vocabulary."""

    def __init__(
        self,
        encoded_vocab: list[str],
        vocab_type: VocabType = VocabType.RAW,
        *,
        vocab_size: int | None = None,
        stop_token_ids: list[int] | int | None = None,
        add_prefix_space: bool = False,
    ) -> None:
        del stop_token_ids, add_prefix_space
        assert isinstance(vocab_type, VocabType)
        assert vocab_size is None or vocab_size >= len(encoded_vocab)

    @staticmethod
    def _detect_metadata_from_hf(backend_str: str) -> dict[str, Any]:
        kind = json.loads(backend_str)["decoder"]["type"]
        return {
            "vocab_type": VocabType.BYTE_LEVEL if kind == "ByteLevel" else VocabType.RAW,
            "add_prefix_space": False,
        }


class CompiledGrammar:
    """A compiled grammar for a matcher."""


class Grammar:
    """A grammar whose str is its EBNF; the fake engine reads the schema from it."""

    def __init__(self, text: str) -> None:
        self._text = text

    @staticmethod
    def from_json_schema(
        schema: str,
        *,
        any_whitespace: bool = True,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        strict_mode: bool = True,
    ) -> "Grammar":
        assert (any_whitespace, indent, separators, strict_mode) == (False, None, (",", ":"), True)
        _compile("json", schema)
        return Grammar(f"{OF_SCHEMA}{schema}")

    def __str__(self) -> str:
        return self._text


class GrammarCompiler:
    """Compiles grammars for a vocabulary."""

    def __init__(
        self,
        tokenizer_info: TokenizerInfo,
        *,
        max_threads: int = 8,
        cache_enabled: bool = True,
        cache_limit_bytes: int = -1,
    ) -> None:
        del max_threads, cache_enabled, cache_limit_bytes
        if not isinstance(tokenizer_info, TokenizerInfo):
            raise TypeError("Please convert the tokenizer to TokenizerInfo before passing it to GrammarCompiler.")

    def compile_regex(self, regex: str) -> CompiledGrammar:
        return _compile("regex", regex)

    def compile_grammar(self, grammar: str) -> CompiledGrammar:
        return _compile("grammar", grammar)


def _compile(kind: str, text: str) -> CompiledGrammar:
    if not isinstance(text, str):
        raise TypeError("a grammar is a str")
    while ENDLESS in text:
        time.sleep(1)
    compile_form(kind, text)
    return CompiledGrammar()
