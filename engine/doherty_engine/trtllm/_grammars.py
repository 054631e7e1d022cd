"""Compiles grammars on trial before TensorRT-LLM gets them, with a time limit, in a separate process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from doherty_engine._errors import EngineError, EngineSetupError
from doherty_engine.text import HuggingFaceTokenizer

_PROGRAM = Path(__file__).with_name("_grammar_process.py")
_SECONDS = 1.0
"""The time limit. TensorRT-LLM's worker compiles the grammar again, and all of its requests wait meanwhile."""
_MAX_CACHED = 1000


class GrammarTrial:
    """The process that compiles grammars, one at a time."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        """Starts the process. Blocks until it has read the tokenizer.

        Raises:
            EngineSetupError: xgrammar cannot be imported, or does not support this tokenizer.
        """
        self._tokenizer = json.dumps(
            {
                "vocabulary": _by_id(tokenizer.library.get_vocab()),
                "eos_ids": sorted(tokenizer.eos_ids),
                "tokenizer": tokenizer.library.backend_tokenizer.to_str(),
            }
        )
        self._lock = Lock()
        self._valid: set[tuple[str, str]] = set()
        """Grammars that were compiled successfully; callers often repeat them."""
        self._process = self._start()

    def problem(self, kind: str, text: str) -> str:
        """Returns the problem of a grammar, or an empty string. Blocks for its compilation and those before it.

        Args:
            kind: "json", "regex" or "grammar", as in GuidedDecodingParams.
            text: The grammar.

        Raises:
            EngineError: The process has ended and cannot be started again.
        """
        if (kind, text) in self._valid:
            return ""
        with self._lock:
            if self._process.poll() is not None:
                self.close()
                self._process = self._start()
            problem = self._ask(json.dumps([kind, text]))
        if problem is None:
            raise EngineError("the process that compiles grammars has ended")
        if not problem:
            if len(self._valid) >= _MAX_CACHED:
                self._valid.clear()
            self._valid.add((kind, text))
        return problem

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", _PROGRAM, str(_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._process = process
        problem = self._ask(self._tokenizer)
        if problem != "":
            self.close()
        if problem:
            raise EngineSetupError(
                f"Constraints cannot be compiled here ({problem}); leave guided_decoding_backend out, or repair "
                "xgrammar."
            )
        if problem is None:
            raise EngineSetupError(
                "The process that compiles grammars ended before it was ready; see its output above."
            )
        return process

    def _ask(self, line: str) -> str | None:
        """Sends a line and reads the reply; None if the process has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        return str(json.loads(answer)) if answer else None


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens in the order of their ids; empty for unused ids."""
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    return tokens
