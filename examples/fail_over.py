"""Kills a server in the middle of an answer, which goes on at another one: `python examples/fail_over.py`.

It starts two servers of its own with the synthetic engine, so it needs the extra `server` and no model.
"""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from doherty import Client

SERVE = (sys.executable, "-m", "doherty.cli", "serve", "--engine", "synthetic", "--listen", "127.0.0.1:0")


@contextmanager
def server() -> Generator[tuple[str, subprocess.Popen[str]]]:
    """A server that serves, and its address."""
    process = subprocess.Popen((*SERVE, "-o", "tokens_per_second=40"), stderr=subprocess.PIPE, text=True)
    try:
        yield address_when_ready(process), process
    finally:
        process.kill()
        process.communicate()


def address_when_ready(process: subprocess.Popen[str]) -> str:
    """Reads the log of a server until it serves."""
    for line in process.stderr or ():
        event: dict[str, object] = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "ready":
            return str(event["address"])
    raise ChildProcessError("a server did not become ready")


def runs_something(target: str) -> bool:
    """Tells whether a server is at work."""
    with Client(target) as client:
        return client.latency().running > 0


def main() -> None:
    """Streams one answer, and takes its server away."""
    with ExitStack() as stack:
        servers = dict(stack.enter_context(server()) for _ in range(2))
        client = stack.enter_context(Client(list(servers)))
        undisturbed = client.generate("Why is the sky blue?", max_output_tokens=60)
        stream = stack.enter_context(client.stream_generate("Why is the sky blue?", max_output_tokens=60))
        killed = None
        for count, delta in enumerate(stream):
            print(delta, end="", flush=True)
            if count == 20:  # noqa: PLR2004 - somewhere in the middle
                killed = next(filter(runs_something, servers))
                servers[killed].kill()
                print(" <killed> ", end="")
    print(f"\n{killed} was killed; the answer went on {stream.resumed} time at the other one")
    print(f"the same as undisturbed: {stream.text == undisturbed.text}")


if __name__ == "__main__":
    main()
