"""Whether a server that is attacked again and again gives everything back.

`PYTHONPATH=tests python benchmarks/attack/soak.py [MINUTES]`, 30 if nothing else is said. One attack after the other,
as attack.py has them, on one server, with pauses that keep the load below half a core; beside them a stream of 200
messages a second and short answers on new connections. Prints what the server holds every ten seconds, and saves it in
results/. To reach: afterwards no slot, task, thread, file descriptor or object of a request is left that was not there
before, no honest call has failed, and the memory (RSS) around minute 5 and that of the last two minutes, each a median,
differ by at most 5 %.
"""

import itertools
import json
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import grpc

from attack import ADDRESS_SPACE, ATTACKS, Attacker, Honest
from holding import HOLDING
from support.memory import peak_bytes
from support.security import add_key, connect_with
from support.server import start_server
from support.soak.census import COLUMNS, PROBE, Census, Taker

RESULTS = Path(__file__).parent / "results"
SAMPLE_SECONDS = 10.0
HOLD_SECONDS, REST_SECONDS = 5.0, 8.0
"""How long an attacker keeps its connections after the attack, and how long nobody attacks then."""
WARM_UP = (
    "path that is not UTF-8",
    "multiplexed, 72 kB",
    "text to count",
    "names",
    "GetLatency, 8 callers",
    *HOLDING,
    "32 conversations of 4,096 messages",
    "32 x 8,000 multiplexed, at once",
)
"""Attacks from before the soak: what the server makes once for each key, thread, method or burst is no leak.

Those that need the most memory are among them, because Python keeps some of it for the next burst.
"""
FOREIGN = "'event': 'library'"
"""Errors that gRPC's library logs of what it cannot decode are meant."""
EARLY_SECONDS = 300.0
AROUND_SECONDS = 60.0
MOST_GROWTH = 0.05
FLAGS = ("--engine", "synthetic", "--stall-timeout", "5", "--receive-timeout", "5", "--latency-window", "60")


def attack_in_turns(target: tuple[str, str, str], ends_at: float, done: Counter[str]) -> None:
    """Lets one attacker after the other come."""
    for name in itertools.cycle(ATTACKS):
        if time.monotonic() > ends_at:
            return
        attack(name, target, HOLD_SECONDS)
        done[name] += 1
        time.sleep(REST_SECONDS)


def attack(name: str, target: tuple[str, str, str], hold_seconds: float = 0.0) -> None:
    """Lets one attacker come."""
    attacker = Attacker(name, *target)
    try:
        attacker.attack()
        time.sleep(hold_seconds)
    finally:
        attacker.stop()


def take_until(attacking: threading.Thread, taker: Taker) -> list[Census]:
    """Takes a census every ten seconds while the attacks last."""
    taken: list[Census] = []
    while attacking.is_alive():
        attacking.join(SAMPLE_SECONDS)
        try:
            taken.append(taker.take())
        except grpc.RpcError as error:  # the census is an honest call, too
            taker.errors.append(str(error))
            continue
        print("| " + " | ".join(map(str, taken[-1].line)) + " |", flush=True)
    return taken


def growth_of(taken: list[Census]) -> float:
    """By how much of itself the memory differs between minute 5, or a sixth of a shorter soak, and the end."""
    first, last = taken[0].seconds, taken[-1].seconds
    early = first + min(EARLY_SECONDS, (last - first) / 6)
    before = median(one.rss_mib for one in taken if abs(one.seconds - early) <= AROUND_SECONDS)
    after = median(one.rss_mib for one in taken if one.seconds >= last - 2 * AROUND_SECONDS)
    return abs(after / before - 1)


def main() -> None:
    """Soaks, prints and saves."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    done: Counter[str] = Counter()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with ExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys.json"
        stream, short, asking = (add_key(keys, name) for name in ("stream", "short", "asking"))
        narrow = add_key(keys, "attacker", max_concurrent=4)
        flags = (*FLAGS, "--keys-file", str(keys), "--metrics-listen", "127.0.0.1:0")
        server = stack.enter_context(start_server(*flags, PYTHONPATH=os.pathsep.join([PROBE, *sys.path])))
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        target = server.target, narrow, str(server.wait_for("metrics")["address"])
        taker = Taker(server, stack.enter_context(connect_with(server.target, asking)))
        warming = Honest(server.target, stream, short)
        for name in WARM_UP:
            attack(name, target)
        warming.stop()
        before = taker.quiet()
        honest = Honest(server.target, stream, short)
        ends_at = time.monotonic() + minutes * 60
        attacking = threading.Thread(target=attack_in_turns, args=(target, ends_at, done), daemon=True)
        attacking.start()
        taken = take_until(attacking, taker)
        honest.stop()
        after = taker.quiet(before)
        peak = peak_bytes(server) / (1 << 20)
        exit_code = server.stop()
    growth, leaked = growth_of(taken), after.leaked(before)
    errors = [error for error in taker.errors if FOREIGN not in error]
    holds = not (leaked or honest.failed or errors or exit_code) and growth <= MOST_GROWTH
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "minutes": minutes,
        "holds": holds,
        "growth_of_memory": round(growth, 4),
        "highest_rss_mib": round(peak, 1),
        "leaked": leaked,
        "failed_honest_calls": honest.failed,
        "deltas_read": len(honest.arrivals),
        "errors_in_the_log": errors,
        "exit_code": exit_code,
        "attacks": dict(done),
        "census": [dict(zip(COLUMNS, one.line, strict=True)) for one in (before, *taken, after)],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"soak-{minutes:g}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("\n".join(f"{name}: {figure}" for name, figure in figures.items() if name != "census"))
    sys.exit(0 if holds else "it does not hold")


if __name__ == "__main__":
    main()
