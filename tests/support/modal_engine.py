"""Replaces the command `doherty` in the tests' containers on Modal, because they have no TensorRT-LLM.

It is strict: it accepts only the command lines that the app should use. It appends them to the file $NOTES. A server
uses the engine synthetic, and listens on $SERVES instead of the address in its command line. The subcommand in $BROKEN
fails.
"""

import json
import os
import sys
from pathlib import Path

_MODEL = ("--model", "NousResearch/Meta-Llama-3-8B-Instruct")
_REVISION = "53346005fb0ef11d3b6a83b12c895cca40156b6c"
_LISTEN = ("--listen", "0.0.0.0:50051", "--insecure")
_METRICS = ("--metrics-listen", "127.0.0.1:9464")
_USAGE = 2


def main(*command: str) -> None:
    """Does what the command line says, and ends the process."""
    with Path(os.environ["NOTES"]).open("a", encoding="utf-8") as notes:
        print(json.dumps(command), file=notes)
    broken = os.environ.get("BROKEN")
    match command:
        case ("engine", "prepare", *rest) if rest[:-1] == [*_MODEL, "--revision", _REVISION, "--profile"]:
            sys.exit("The GPU is too small." if broken == "prepare" else 0)
        case ("serve", *rest) if rest[:5] == ["--engine", "trtllm", *_MODEL, "-o"]:
            revision, option, profile, *more = rest[5:]
            if revision == f"revision={_REVISION}" and option == "-o" and profile in ("profile=fast", "profile=slow"):
                if broken == "exit":
                    sys.exit(0)
                _serve(more, "slots=none" if broken == "serve" else "answer_tokens=3")
    sys.stderr.write(f"There is no such command: {command}\n")
    sys.exit(_USAGE)


def _serve(flags: list[str], option: str) -> None:
    at = flags.index(_LISTEN[0])
    if tuple(flags[at : at + 3]) != _LISTEN:
        return
    flags[at + 1] = os.environ["SERVES"]
    at = flags.index(_METRICS[0])
    if tuple(flags[at : at + 2]) != _METRICS:
        return
    flags[at + 1] = "127.0.0.1:0"
    own = Path(sys.executable).with_name("doherty")
    os.execv(own, (own, "serve", "--engine", "synthetic", "-o", option, *flags))  # noqa: S606 - it is our own command


if __name__ == "__main__":
    main(*sys.argv[1:])
