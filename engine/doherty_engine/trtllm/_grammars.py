"""Compiles grammars on trial before TensorRT-LLM gets them, with a time limit, in a separate process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from doherty_engine._errors import EngineError, EngineSetupError
from doherty_engine.text import HuggingFaceTokenizer
from doherty_engine.tokens import FairThreads

_PROGRAM = Path(__file__).with_name("_grammar_process.py")
_SECONDS = 1.0
"""The time limit. TensorRT-LLM's worker compiles the grammar again, and all of its requests wait meanwhile."""
_MAX_CACHED_CHARACTERS = 8_000_000


class Trial(NamedTuple):
    """The result of compiling a grammar on trial."""

    problem: str
    """What is wrong with the grammar; empty if nothing is."""
    grammar: str
    """What TensorRT-LLM gets: regular expressions unchanged, everything else as a grammar."""


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
        self._turns = FairThreads(1, per_key=1)
        self._valid: dict[tuple[str, str], Trial] = {}
        """Grammars that were compiled successfully; callers often repeat them."""
        self._valid_characters = 0
        self._process = self._start()

    async def compile(self, kind: str, text: str, key: str) -> Trial:
        """Compiles a grammar on trial.

        Args:
            kind: "json", "regex" or "grammar", as in GuidedDecodingParams.
            text: The grammar.
            key: Who wants it; keys take turns.

        Raises:
            EngineError: The process has ended and cannot be started again.
        """
        known = self._valid.get((kind, text))
        return known if known is not None else await self._turns.run(key, self._compile, kind, text)

    def _compile(self, kind: str, text: str) -> Trial:
        if self._process.poll() is not None:
            self.close()
            self._process = self._start()
        trial = self._ask(json.dumps([kind, text]))
        if trial is None:
            raise EngineError("the process that compiles grammars has ended")
        if not trial.problem:
            self._remember((kind, text), trial)
        return trial

    def _remember(self, constraint: tuple[str, str], trial: Trial) -> None:
        self._valid_characters += len(constraint[1]) + len(trial.grammar)
        if self._valid_characters > _MAX_CACHED_CHARACTERS:
            self._valid.clear()
            self._valid_characters = 0
            return
        self._valid[constraint] = trial

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
        trial = self._ask(self._tokenizer)
        if trial is None or trial.problem:
            self.close()
        if trial is None:
            raise EngineSetupError(
                "The process that compiles grammars ended before it was ready; see its output above."
            )
        if trial.problem:
            raise EngineSetupError(
                f"Constraints cannot be compiled here ({trial.problem}); leave guided_decoding_backend out, or repair "
                "xgrammar."
            )
        return process

    def _ask(self, line: str) -> Trial | None:
        """Sends a line and reads the reply; None if the process has ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        return Trial(*json.loads(answer)) if answer else None


def _by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens in the order of their ids; empty for unused ids."""
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    return tokens
