"""Measures the engine without a server: `python -m transport_bench.engine_alone LOAD WARM_UP SECONDS LOG`.

In our server, the engine runs in the server's process, so the server's CPU time includes the engine's. This program
runs the same engine with the same log and nothing else. Beside a server, the engine costs more, because they share the
CPU's caches.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import uvloop

from doherty_engine import Conversation, Engine, EngineRequest, Message, Role, StepOutput, Stopping, create_engine
from transport_bench.engine_log import PROMPT, LoggedEngine
from transport_bench.loads import LOADS, Load


class Streams:
    """Sends the requests of the load generator directly to the engine, and counts outputs."""

    def __init__(self, engine: Engine, load: Load) -> None:
        """Starts without requests."""
        self.tokens = 0
        self.answers = 0
        self._engine = engine
        self._load = load
        self._prompts = [Conversation((Message(Role.USER, f"{PROMPT}{number}"),)) for number in range(load.streams)]
        self._open: dict[str, int] = {}
        self._keys = map(str, count())

    async def run(self, warm_up: float, seconds: float) -> dict[str, float]:
        """Puts the load on the engine, and returns the figures of the window."""
        await self._engine.start(self._take)
        if self._load.burst_every:
            self._burst(asyncio.get_running_loop().time())
        else:
            self._ask_all()
        await asyncio.sleep(warm_up)
        begin = self._clocks()
        await asyncio.sleep(seconds)
        return {name: end - begin[name] for name, end in self._clocks().items()}

    def _clocks(self) -> dict[str, float]:
        return {
            "seconds": time.monotonic(),
            "cpu_seconds": time.process_time(),
            "tokens": self.tokens,
            "answers": self.answers,
        }

    def _burst(self, when: float) -> None:
        if not self._open:
            self._ask_all()
        following = when + self._load.burst_every
        asyncio.get_running_loop().call_at(following, self._burst, following)

    def _ask_all(self) -> None:
        for number in range(self._load.streams):
            self._ask(number, self._load.first_length(number))

    def _ask(self, number: int, tokens: int) -> None:
        key = next(self._keys)
        self._open[key] = number
        stopping = Stopping(max_output_tokens=tokens, ignore_eos=True)
        self._engine.submit(EngineRequest(key, self._prompts[number], stopping=stopping))

    def _take(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            self.tokens += output.token_count
            if output.is_last:
                self.answers += 1
                number = self._open.pop(output.key)
                if not self._load.burst_every:
                    self._ask(number, self._load.answer_tokens)


def main() -> None:
    """Measures, and prints the figures of the window as JSON."""
    name, warm_up, seconds, log = sys.argv[1:]
    load = LOADS[name]
    streams = Streams(LoggedEngine(create_engine("synthetic", load.engine_options), Path(log)), load)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(streams.run(float(warm_up), float(seconds)))))


if __name__ == "__main__":
    main()
