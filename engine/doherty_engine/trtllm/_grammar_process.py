"""The program that compiles grammars on trial, because xgrammar has no time limit and cannot be interrupted.

Each grammar is compiled in a forked process that is killed after the time limit. Requests and replies are lines of JSON
on standard input and output: first the tokenizer, then the grammars. The program exits when its input ends, and thus
whenever the server ends.

The reply to a JSON Schema contains the grammar that xgrammar makes of it without white space. TensorRT-LLM would make
xgrammar allow any amount of white space, and each token of it takes a step.
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

_MAX_REASON_BYTES = 2000
_PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")


def main(seconds: float) -> None:
    """Reads the tokenizer, and then compiles each grammar for at most `seconds`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # redirects what libraries print to standard error
    try:
        xgrammar = import_module("xgrammar")
        info = _read_tokenizer(xgrammar, json.loads(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001  every exception is reported
        _say(answers, _reason(error), "")
        return
    _say(answers, "", "")
    for line in sys.stdin:
        kind, text = json.loads(line)
        _say(answers, *_try(xgrammar, info, kind, text, seconds))


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


def _try(xgrammar: Any, info: Any, kind: str, text: str, seconds: float) -> tuple[str, str]:
    """Returns the problem of a grammar, or an empty string; and the grammar to use."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        # No handler of the parent process may run in the child.
        with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as answer:
            answer.write(json.dumps(_compile(xgrammar, info, kind, text)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        in_time = bool(select.select([answer], [], [], seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        reply = answer.read()
    os.waitpid(child, 0)
    if not in_time:
        return f"it takes longer than {seconds:g} s to compile", ""
    if not reply:
        return "its compiler crashes", ""
    problem, grammar = json.loads(reply)
    return problem, grammar


def _compile(xgrammar: Any, info: Any, kind: str, text: str) -> tuple[str, str]:
    """Compiles like the worker (`pyexecutor/grammar_matcher.py`). Returns the same as `_try`."""
    compiler = xgrammar.GrammarCompiler(info)
    try:
        if kind == "json":
            text = str(xgrammar.Grammar.from_json_schema(text, any_whitespace=False, separators=(",", ":")))
        if kind == "regex":
            compiler.compile_regex(text)
        else:
            compiler.compile_grammar(text)
    except (RuntimeError, ValueError) as error:
        return f"it cannot be compiled: {_reason(error)}"[:_MAX_REASON_BYTES], ""
    return "", text


def _reason(error: BaseException) -> str:
    """The message of an error without the position in xgrammar's source."""
    return _PLACE.sub("", first_line(error))


def _say(answers: Any, problem: str, grammar: str) -> None:
    answers.write(json.dumps([problem, grammar]) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
