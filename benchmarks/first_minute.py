"""A newcomer's first minutes: `python benchmarks/first_minute.py [REPOSITORY]`.

Clones the repository into an empty folder, runs `make demo` there, and prints how long it took to the first answer of
the real model and to the end. The first answer should come within three minutes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_ANSWER = "What atoms are in water?"
"""The first of the ten questions; its line is printed when it is asked."""
SECOND_QUESTION = "Which F1 team won in 2011?"
LIMIT_SECONDS = 180


def main() -> None:
    """Runs the demo, and prints the times."""
    repository = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", repository, folder], check=True)
        demo = subprocess.Popen(["make", "demo"], cwd=folder, stdout=subprocess.PIPE, text=True)
        first = asked_at = None
        for line in demo.stdout or ():
            print(line, end="", flush=True)
            if FIRST_ANSWER in line and asked_at is None:
                asked_at = time.monotonic() - begun
            if SECOND_QUESTION in line and first is None:
                first = time.monotonic() - begun
        code = demo.wait()
        total = time.monotonic() - begun
    if code or asked_at is None or first is None:
        sys.exit(f"`make demo` ended with {code} and without an answer")
    print(
        f"\nfirst question after {asked_at:.0f} s, its answer complete by {first:.0f} s, everything after {total:.0f} s"
    )
    sys.exit(0 if first <= LIMIT_SECONDS else f"the first answer took more than {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()
