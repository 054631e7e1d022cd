"""Checks that a server releases everything that callers made it hold.

`PYTHONPATH=tests python benchmarks/soak/run.py [MINUTES] [ENGINE]` (10 minutes, synthetic) runs 64 callers at a time.
They read, cancel, stall, disconnect, miss their deadlines, send noise, use wrong keys, and trust other certificates.
Every ten seconds, it prints what the server holds, and it saves everything in results/. Target: at the end, no slot,
task, thread, file descriptor or request object is left that was not there before, and the memory (RSS) differs by at
most 5 % between the second minute and the last.
"""

import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

os.environ["GRPC_VERBOSITY"] = "NONE"  # otherwise it logs each failed handshake, and some fail on purpose

from support.certificates import Authority
from support.security import add_key, connect_with
from support.server import start_server
from support.soak.callers import Crowd
from support.soak.census import COLUMNS, PROBE, Census, Taker

RESULTS = Path(__file__).parent / "results"
STREAMS = 64
SAMPLE_SECONDS = 10.0
WARM_UP_SECONDS = 10.0
SECOND_MINUTE = 120.0
MAX_GROWTH = 0.05
FLAGS = {
    "synthetic": ("--engine", "synthetic", "-o", "slots=24", "-o", "prefill_tokens_per_second=2000"),
    "llamacpp": ("-o", "slots=4", "-o", "context_tokens=2048"),
}
COMMON = ("--max-queued-requests", "16", "--stall-timeout", "2", "--latency-window", "60")
"""Short timeouts, and a window that is full by the second minute."""


class Soak:
    """A server, its callers, and the censuses of what it holds."""

    def __init__(self, engine: str, stack: ExitStack) -> None:
        """Starts the server, which runs as long as `stack` is open."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "other").mkdir()
        authority, other = Authority(folder), Authority(folder / "other")
        authority.renew("soak")
        token = add_key(folder / "keys.toml", "soak")
        flags = (*FLAGS[engine], *COMMON, *authority.flags, "--keys-file", str(folder / "keys.toml"))
        self.server = stack.enter_context(start_server(*flags, PYTHONPATH=os.pathsep.join([PROBE, *sys.path])))
        caller = stack.enter_context(connect_with(self.server.target, token, authority.roots))
        self.taker = Taker(self.server, caller)
        self.crowd = Crowd(self.server.target, authority.roots, other.roots, token, seed=1)

    async def run(self, seconds: float) -> list[Census]:
        """Starts the callers, and takes a census every ten seconds."""
        coming = asyncio.create_task(self.crowd.come(STREAMS, seconds))
        taken: list[Census] = []
        while not coming.done():
            await asyncio.wait([coming], timeout=SAMPLE_SECONDS)
            taken.append(await asyncio.to_thread(self.taker.take))
            print("| " + " | ".join(map(str, taken[-1].line)) + " |", flush=True)
        await coming
        gc.collect()  # a call that was left unread keeps its connection in a cycle
        return taken


async def main() -> None:
    """Soaks, prints and saves."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    engine = sys.argv[2] if len(sys.argv) > 2 else "synthetic"  # noqa: PLR2004 - the second argument
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with ExitStack() as stack:
        soak = Soak(engine, stack)
        await soak.run(WARM_UP_SECONDS)
        before = await asyncio.to_thread(soak.taker.quiet)
        taken = await soak.run(minutes * 60)
        after = await asyncio.to_thread(soak.taker.quiet, before)
        exit_code = soak.server.stop()
    growth = growth_of(taken[:-1])  # by the last one the callers have gone
    leaked = after.leaked(before)
    unmeant = {end: count for end, count in soak.crowd.ends.items() if end.endswith((": INTERNAL", ": UNKNOWN"))}
    holds = not (leaked or unmeant or soak.taker.errors or exit_code) and growth <= MAX_GROWTH
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "engine": engine,
        "minutes": minutes,
        "callers": STREAMS,
        "calls": soak.crowd.ends.total(),
        "holds": holds,
        "growth_of_memory": round(growth, 4),
        "leaked": leaked,
        "internal_or_unknown": unmeant,
        "errors_in_the_log": soak.taker.errors,
        "exit_code": exit_code,
        "ends": dict(sorted(soak.crowd.ends.items())),
        "census": [dict(zip(COLUMNS, census.line, strict=True)) for census in (before, *taken, after)],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{engine}-{minutes:g}.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name in ("calls", "growth_of_memory", "leaked", "internal_or_unknown", "errors_in_the_log", "exit_code"):
        print(f"{name}: {figures[name]}")
    sys.exit(0 if holds else "it does not hold")


def growth_of(taken: list[Census]) -> float:
    """By how much of itself the memory differs between the second minute, or a fifth of a shorter soak, and the end."""
    first, last = taken[0].seconds, taken[-1].seconds
    early = first + min(SECOND_MINUTE, (last - first) / 5)
    near = sorted(taken, key=lambda census: abs(census.seconds - early))[:3]
    reference = median(census.rss_mib for census in near)
    return abs(median(census.rss_mib for census in taken[-3:]) / reference - 1)


if __name__ == "__main__":
    asyncio.run(main())
