"""Starts a server with a small real model, puts the ten questions of the reference benchmark to it, and stops it.

`make demo` runs it. It uses the command `doherty` alone, and prints what it runs, so that each step can be repeated.
"""

import json
import subprocess
import sys
import threading
from collections import deque

COMMAND = (sys.executable, "-m", "doherty.cli")
STOP_SECONDS = 60


def main() -> int:
    """Runs the demo, and returns its exit code."""
    words: deque[str] = deque(maxlen=10)
    # At temperature 0 so small a model makes the most sense.
    serve = ("serve", "--listen", "127.0.0.1:0", "--temperature", "0")
    say(serve, "The real server, with a real model on this machine's CPU.")
    server = subprocess.Popen((*COMMAND, *serve), stderr=subprocess.PIPE, text=True)
    try:
        ask(server, words)
    except (ChildProcessError, subprocess.CalledProcessError) as error:
        return fail(str(error), words)
    finally:
        server.terminate()
        code = server.wait(STOP_SECONDS)
    if code != 0:
        return fail(f"the server ended with {code}", words)
    print("\nThe model is 135 million parameters small: quick on a CPU, fluent, and often wrong.")
    print("Yours to try: `.venv/bin/doherty serve`, and in another terminal `.venv/bin/doherty chat`.")
    return 0


def ask(server: subprocess.Popen[str], words: deque[str]) -> None:
    """Waits for the server, puts the questions to it, and shows what it says of its latency."""
    address = wait_until_ready(server, words)
    # Somebody has to read the log, or the server would wait for it when the pipe is full.
    threading.Thread(target=words.extend, args=(server.stderr,), daemon=True).start()
    run(
        ("bench", "--target", address, "--max-output-tokens", "64"),
        "The ten questions of the reference benchmark, through the SDK; cut at 64 tokens to keep this short.",
    )
    run(("latency", "--target", address), "The server's own table, which counts the short warm-up answer too.")


def wait_until_ready(server: subprocess.Popen[str], words: deque[str]) -> str:
    """Reads the server's log until it serves, and returns its address."""
    for line in server.stderr or ():
        words.append(line)
        event: dict[str, object] = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "ready":
            return str(event["address"])
    raise ChildProcessError("the server did not become ready")


def run(arguments: tuple[str, ...], what: str) -> None:
    """Shows a step and runs it to its end, which must be a good one."""
    say(arguments, what)
    subprocess.run((*COMMAND, *arguments), check=True)


def say(arguments: tuple[str, ...], what: str) -> None:
    """Shows a step."""
    print(f"\n# {what}\n$ doherty {' '.join(arguments)}\n", flush=True)


def fail(what: str, words: deque[str]) -> int:
    """Shows what went wrong, with the server's last words."""
    print(f"\ndemo: {what}; the server's last words:", file=sys.stderr)
    sys.stderr.writelines(words)
    return 1


if __name__ == "__main__":
    sys.exit(main())
