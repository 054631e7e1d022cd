"""The program that tries grammars: xgrammar has no bound of its own, and what it has begun cannot be broken off.

Each is compiled in a fork that is killed when its time is over. It speaks JSON, a line each way, on standard input and
output: of the tokenizer first, and then of grammars. It ends with its input, and so with the server.
"""

import contextlib
import json
import os
import re
import select
import signal
import sys
from importlib import import_module
from typing import Any

from doherty_engine._errors import first_line

_MOST_BYTES = 2000
_PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


def main(seconds: float) -> None:
    """Reads a tokenizer, and then tries what comes, each grammar for at most `seconds`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # for what libraries print
    try:
        xgrammar = import_module("xgrammar")
        info = _read_tokenizer(xgrammar, json.loads(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001  whatever it is, it is told
        _say(answers, _reason(error))
        return
    _say(answers, "")
    for line in sys.stdin:
        kind, text = json.loads(line)
        _say(answers, _try(xgrammar, info, kind, text, seconds))


def _read_tokenizer(xgrammar: Any, tokenizer: dict[str, Any]) -> Any:
    """A TokenizerInfo, made as TensorRT-LLM's worker makes it (`pyexecutor/grammar_matcher.py`)."""
    kind = xgrammar.TokenizerInfo
    vocabulary = tokenizer["vocabulary"]
    return kind(
        vocabulary,
        vocab_size=len(vocabulary),
        stop_token_ids=tokenizer["eos_ids"],
        **kind._detect_metadata_from_hf(tokenizer["tokenizer"]),  # noqa: SLF001 - as it does there
    )


def _try(xgrammar: Any, info: Any, kind: str, text: str, seconds: float) -> str:
    """What is wrong with a grammar; empty if nothing is."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException):  # nothing of this process may run in its copy
            os.write(writing, _compile(xgrammar, info, kind, text).encode()[:_MOST_BYTES])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        in_time = bool(select.select([answer], [], [], seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        reply = answer.read().decode(errors="replace")
    os.waitpid(child, 0)
    if not in_time:
        return f"it takes longer than {seconds:g} s to compile"
    return "its compiler crashes" if not reply else reply[1:]


def _compile(xgrammar: Any, info: Any, kind: str, text: str) -> str:
    """A point, and behind it what is wrong, by what TensorRT-LLM's worker calls (`pyexecutor/grammar_matcher.py`)."""
    compiler = xgrammar.GrammarCompiler(info)
    compilers = {
        "json": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "grammar": compiler.compile_grammar,
    }
    try:
        compilers[kind](text)
    except (RuntimeError, ValueError) as error:
        return f".it cannot be compiled: {_reason(error)}"
    return "."


def _reason(error: BaseException) -> str:
    """What an error says, without where in xgrammar's sources it was found."""
    return _PLACE.sub("", first_line(error))


def _say(answers: Any, text: str) -> None:
    answers.write(json.dumps(text) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
