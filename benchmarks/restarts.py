"""Checks that an engine releases everything: `PYTHONPATH=tests python benchmarks/restarts.py [ENGINE] [COUNT]`.

Starts the engine, requests one answer and stops it, repeatedly in one process, like the supervisor. Prints the memory
(RSS), threads and open files after each tenth of the rounds. Target: no growth after the first tenth.
"""

import asyncio
import os
import sys
from pathlib import Path

from doherty_engine import EngineRequest, RawText, Stopping
from support.engines import running

_PAGES_PER_MIB = (1 << 20) // os.sysconf("SC_PAGE_SIZE")


def usage() -> tuple[float, int, int]:
    """Returns RSS in MiB, the number of threads, and the number of open files."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    threads, files = (len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("task", "fd"))
    return pages / _PAGES_PER_MIB, threads, files


async def main() -> None:
    """Prints a line for each tenth."""
    engine = sys.argv[1] if len(sys.argv) > 1 else "synthetic"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 30  # noqa: PLR2004 - the second argument
    print(f"| restarts of {engine} | RSS (MiB) | threads | open files |\n|{'---|' * 4}")
    for number in range(1, count + 1):
        async with running(engine) as lab:
            await lab.ask(EngineRequest(f"{number}", RawText("Hello"), stopping=Stopping(max_output_tokens=8)))
        if number % max(1, count // 10) == 0:
            rss, threads, files = usage()
            print(f"| {number} | {rss:.0f} | {threads} | {files} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
