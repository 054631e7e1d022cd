"""Runs the command `doherty` as a user would."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

from support.preloaded import run_preloaded

SECONDS = 180
"""If a command runs for longer than this, in seconds, it counts as hanging."""

DOHERTY = (sys.executable, "-m", "doherty.cli")


def environment(**more: str) -> dict[str, str]:
    """Returns the environment without variables that would change what the command does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOHERTY_")}
    return {**kept, "TERM": "dumb", **more}


def run_doherty(*arguments: str, text: str = "", without: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end.

    `text` is its stdin, `more` is added to its environment, and it cannot import the modules named in `without`.
    """
    # The interpreter or a library may read other variables, and `serve` sets one while it is imported.
    if without or arguments[:1] == ("serve",) or not all(name.startswith("DOHERTY_") for name in more):
        command = (sys.executable, "-c", _BLOCKED.format(names=without.split())) if without else DOHERTY
        return subprocess.run(
            (*command, *arguments),
            input=text,
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=SECONDS,
            env=environment(**more),
        )
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(text.encode())
        stdin.seek(0)
        streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
        code = run_preloaded(DOHERTY[-1], *arguments, variables=environment(**more), streams=streams, seconds=SECONDS)
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess(arguments, code, stdout.read().decode(), stderr.read().decode())


_BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from doherty.cli import main
main()
"""

EXAMPLES = Path(__file__).parents[2] / "examples"
