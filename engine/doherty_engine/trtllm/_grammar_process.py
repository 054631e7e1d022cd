"""The program that compiles grammars on trial, because xgrammar has no time limit and cannot be interrupted.

Each grammar is compiled in a forked process that is killed after the time limit. Requests and replies are lines of JSON
on standard input and output: first the tokenizer, then the grammars. The program exits when its input ends, and thus
whenever the server ends.
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
    """Reads the tokenizer, and then compiles each grammar for at most `seconds`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # redirects what libraries print to standard error
    try:
        xgrammar = import_module("xgrammar")
        info = _read_tokenizer(xgrammar, json.loads(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001  every exception is reported
        _say(answers, _reason(error))
        return
    _say(answers, "")
    for line in sys.stdin:
        kind, text = json.loads(line)
        _say(answers, _try(xgrammar, info, kind, text, seconds))


def _read_tokenizer(xgrammar: Any, tokenizer: dict[str, Any]) -> Any:
    """Makes a TokenizerInfo in the same way as TensorRT-LLM's worker (`pyexecutor/grammar_matcher.py`)."""
    kind = xgrammar.TokenizerInfo
    vocabulary = tokenizer["vocabulary"]
    return kind(
        vocabulary,
        vocab_size=len(vocabulary),
        stop_token_ids=tokenizer["eos_ids"],
        **kind._detect_metadata_from_hf(tokenizer["tokenizer"]),  # noqa: SLF001 - as in the worker
    )


def _try(xgrammar: Any, info: Any, kind: str, text: str, seconds: float) -> str:
    """Returns the problem of a grammar, or an empty string."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with contextlib.suppress(BaseException):  # no handler of the parent process may run in the child
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
    """Compiles like the worker (`pyexecutor/grammar_matcher.py`). Returns "." and the problem."""
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
    """The message of an error without the position in xgrammar's source."""
    return _PLACE.sub("", first_line(error))


def _say(answers: Any, text: str) -> None:
    answers.write(json.dumps(text) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
