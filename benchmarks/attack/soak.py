"""Checks that a server releases everything that attacks made it hold.

`PYTHONPATH=tests python benchmarks/attack/soak.py [MINUTES] [TRANSPORT]` (30 minutes, grpcio) runs the attacks of
attack.py one after the other against the same server. Beside them, an honest caller reads a stream of 200 messages per
second, and another one requests short answers on new connections. In the pause after each attack, it prints what the
server holds, and it saves everything in results/. Target: at the end, no slot, task, thread, file descriptor or request
object is left that was not there before; no honest call has failed; and the memory (RSS, medians) differs by at most
5 % between minute 5 and the last two minutes.
"""

import itertools
import json
import os
import platform
import resource
import sys
import tempfile
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
HOLD_SECONDS, REST_SECONDS = 5.0, 8.0
"""How long an attacker keeps its connections after the attack, and the pause after that."""
WARM_UP = (
    "path that is not UTF-8",
    "multiplexed, 72 kB",
    "text to count",
    "names",
    "GetLatency, 8 callers",
    "channelz, 8 callers",
    *HOLDING,
    "32 conversations of 4,096 messages",
    "32 x 8,000 multiplexed, at once",
)
"""Attacks before the soak, because what the server creates once per key, thread, method or burst is no leak.

Among them are those that need the most memory, because Python keeps some of it for the next burst. glibc
does so, too: after the first answers of channelz, 5 to 9 MiB stay, half of it in glibc's caches for each thread.
"""
FOREIGN = "'event': 'library'"
"""Log records of libraries. Errors are expected there, because gRPC logs what it cannot decode."""
EARLY_SECONDS = 300.0
AROUND_SECONDS = 60.0
MAX_GROWTH = 0.05
FLAGS = ("--engine", "synthetic", "--stall-timeout", "5", "--receive-timeout", "5", "--latency-window", "60")


def attack(name: str, target: tuple[str, str, str], hold_seconds: float = 0.0) -> None:
    """Runs one attack, and keeps its connections for `hold_seconds`."""
    attacker = Attacker(name, *target)
    try:
        attacker.attack()
        time.sleep(hold_seconds)
    finally:
        attacker.stop()


def attack_in_turns(target: tuple[str, str, str], seconds: float, taker: Taker, done: Counter[str]) -> list[Census]:
    """Runs one attack after the other, and takes a census at the end of each pause between two attacks."""
    ends_at = time.monotonic() + seconds
    taken: list[Census] = []
    names = itertools.cycle(ATTACKS)
    while time.monotonic() < ends_at:
        name = next(names)
        attack(name, target, HOLD_SECONDS)
        done[name] += 1
        time.sleep(REST_SECONDS)
        try:
            taken.append(taker.take())
        except grpc.RpcError as error:  # the call for the census is an honest call, too
            taker.errors.append(str(error))
            continue
        print("| " + " | ".join(map(str, taken[-1].line)) + " |", flush=True)
    return taken


def growth_of(taken: list[Census]) -> float:
    """Returns how much the memory changed between minute 5 (or a sixth of a shorter soak) and the end, as a share."""
    first, last = taken[0].seconds, taken[-1].seconds
    early = first + min(EARLY_SECONDS, (last - first) / 6)
    before = median(census.rss_mib for census in taken if abs(census.seconds - early) <= AROUND_SECONDS)
    after = median(census.rss_mib for census in taken if census.seconds >= last - 2 * AROUND_SECONDS)
    return abs(after / before - 1)


def main() -> None:
    """Runs the soak, prints the censuses, and saves the figures."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    transport = sys.argv[2] if len(sys.argv) > 2 else "grpcio"  # noqa: PLR2004 - the second argument
    done: Counter[str] = Counter()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with ExitStack() as stack:
        keys = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "keys.json"
        stream, short, asking = (add_key(keys, name) for name in ("stream", "short", "asking"))
        narrow = add_key(keys, "attacker", max_concurrent=4)
        flags = (*FLAGS, "--transport", transport, "--keys-file", str(keys), "--metrics-listen", "127.0.0.1:0")
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
        taken = attack_in_turns(target, minutes * 60, taker, done)
        honest.stop()
        after = taker.quiet(before)
        peak = peak_bytes(server) / (1 << 20)
        exit_code = server.stop()
    growth, leaked = growth_of(taken), after.leaked(before)
    errors = [error for error in taker.errors if FOREIGN not in error]
    holds = not (leaked or honest.failed or errors or exit_code) and growth <= MAX_GROWTH
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "transport": transport,
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
        "census": [dict(zip(COLUMNS, census.line, strict=True)) for census in (before, *taken, after)],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"soak-{transport}-{minutes:g}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("\n".join(f"{name}: {figure}" for name, figure in figures.items() if name != "census"))
    sys.exit(0 if holds else "it does not hold")


if __name__ == "__main__":
    main()
