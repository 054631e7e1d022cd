"""Tries grammars before TensorRT-LLM sees them, within a bound of time, in a process of its own."""

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
"""TensorRT-LLM's worker compiles the grammar once more, for which all of its requests wait."""
_MOST_KNOWN = 1000


class GrammarTrial:
    """The process that tries grammars, one at a time."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        """Starts it; blocks until it has read the tokenizer.

        Raises:
            EngineSetupError: xgrammar cannot be loaded, or cannot use this tokenizer.
        """
        self._tokenizer = json.dumps(
            {
                "vocabulary": _by_id(tokenizer.library.get_vocab()),
                "eos_ids": sorted(tokenizer.eos_ids),
                "tokenizer": tokenizer.library.backend_tokenizer.to_str(),
            }
        )
        self._lock = Lock()
        self._known: set[tuple[str, str]] = set()
        """Those that were found good, for callers repeat them."""
        self._process = self._start()

    def problem(self, kind: str, text: str) -> str:
        """What is wrong with a grammar, empty if nothing is; blocks, at most for those before it and its own time.

        Args:
            kind: json, regex or grammar, as GuidedDecodingParams calls them.
            text: the grammar.

        Raises:
            EngineError: the process is gone and cannot be started again.
        """
        if (kind, text) in self._known:
            return ""
        with self._lock:
            if self._process.poll() is not None:
                self.close()
                self._process = self._start()
            problem = self._ask(json.dumps([kind, text]))
        if problem is None:
            raise EngineError("the process that tries grammars has ended")
        if not problem:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.add((kind, text))
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
            raise EngineSetupError("The process that tries grammars ended before it was ready; its message is above.")
        return process

    def _ask(self, line: str) -> str | None:
        """Sends a line, and reads the answer; None where there is none."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("it has both")
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        return str(json.loads(answer)) if answer else None


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens in the order of their ids; empty where an id has none."""
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    return tokens
