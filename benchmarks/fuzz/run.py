"""Fuzzes every RPC of a server: `PYTHONPATH=tests python benchmarks/fuzz/run.py [INPUTS] [ENGINE]`.

Sends 100,000 inputs, or as many as are asked for, to the synthetic engine or to the one that is named; the embedded one
gets constraints above all. Prints what came back, and saves it in results/. The first input that is answered with what
no caller should see, that hangs the server or that ends it is made as small as it gets, and ends the run.
"""

import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from support.fuzz.attack import Attack, attack, bombard
from support.fuzz.inputs import constrained_inputs, inputs
from support.fuzz.rpcs import offered
from support.server import ServerProcess, start_server

RESULTS = Path(__file__).parent / "results"
FLAGS = {
    "llamacpp": ("-o", "context_tokens=512", "--max-output-tokens", "4"),
    "synthetic": ("-o", "tokens_per_second=0", "-o", "context_tokens=2048", "--max-output-tokens", "24"),
}
ROUND = 1000
"""Inputs that are drawn from one number: the same ones in every run."""


def main() -> None:
    """Attacks, prints and saves."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    engine = sys.argv[2] if len(sys.argv) > 2 else "synthetic"  # noqa: PLR2004 - the second argument
    with start_server("--engine", engine, *FLAGS[engine]) as server:
        begun = time.monotonic()
        with attack(server.target) as attacking:
            errors, failure = send_all(server, attacking, engine, count)
        seconds = time.monotonic() - begun
        crashed = server.process.poll() is not None
        exit_code = server.wait() if crashed else server.stop()
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "engine": engine,
        "inputs": attacking.statuses.total(),
        "seconds": round(seconds),
        "crashes": int(crashed),
        "exit_code": exit_code,
        "failure": failure,
        "errors_in_the_log": errors,
        "statuses": dict(attacking.statuses.most_common()),
        "rpcs": dict(attacking.rpcs.most_common()),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{engine}-{count}.json").write_text(text + "\n")
    sys.exit(1 if failure or errors or exit_code else 0)


def send_all(server: ServerProcess, attacking: Attack, engine: str, count: int) -> tuple[int, str | None]:
    """Sends the inputs; returns how many errors the server has logged, and what failed, if anything did."""
    rpcs = offered(server.target)
    strategy = constrained_inputs(rpcs) | inputs(rpcs) if engine == "llamacpp" else inputs(rpcs)
    errors = 0
    try:
        for number, sent in enumerate(range(0, count, ROUND), start=1):
            bombard(attacking, strategy, min(ROUND, count - sent), number)
            errors += sum(line.get("level") == "error" for line in server.read())
            print(f"\r{attacking.statuses.total()} inputs", end="", file=sys.stderr, flush=True)
        attacking.assert_idle()
    except AssertionError as error:
        return errors, str(error)
    return errors, None


if __name__ == "__main__":
    main()
