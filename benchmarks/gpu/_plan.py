"""The cells to measure, with as many requests as ten minutes of GPU time allow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """A load, which the servers get in turn."""

    streams: int
    tokens: int
    requests: int
    """The number of requests to each server in all rounds together."""
    drivers: tuple[str, ...]
    temperature: float = 0.0
    top_p: float = 1.0

    @property
    def name(self) -> str:
        """The name in tables and files."""
        return f"{self.streams} x {self.tokens}" + (f" at {self.temperature:g}" if self.temperature else "")


_SERVERS = ("asyncllm", "stream", "multiplex", "sse")
_TEXT = ("asyncllm", "engine", "stream", "multiplex", "sse", "rust")
_ALL = (*_TEXT, "ids", "smg")

# At one stream a token takes 4.3 ms, so that 200 answers of 340 tokens would take five minutes for each side.
FULL = (
    Cell(64, 128, 256, _ALL),
    Cell(1, 40, 40, _ALL),
    Cell(1, 170, 16, _TEXT),
    Cell(1, 340, 6, _SERVERS),
    Cell(64, 170, 256, _SERVERS),
    Cell(64, 40, 256, _SERVERS),
    Cell(32, 170, 192, _SERVERS),
    Cell(8, 40, 192, _SERVERS),
    Cell(8, 170, 96, _SERVERS),
    Cell(32, 40, 256, _SERVERS),
    Cell(64, 340, 128, _SERVERS),
    Cell(32, 340, 64, _SERVERS),
    Cell(8, 340, 32, _SERVERS),
    Cell(64, 128, 256, _SERVERS, 0.8, 0.95),
    Cell(1, 170, 8, _SERVERS, 0.8, 0.95),
)
"""The cells of the targets come first."""

_FEW = ("asyncllm", "stream", "sse")
TARGETS = (
    Cell(64, 40, 256, _SERVERS),
    Cell(64, 128, 256, _TEXT),
    Cell(1, 40, 40, _SERVERS),
    Cell(1, 170, 16, _FEW),
    Cell(64, 170, 256, _SERVERS),
    Cell(32, 170, 192, _SERVERS),
    Cell(64, 128, 256, _SERVERS, 0.8, 0.95),
    Cell(8, 170, 96, _SERVERS),
)
"""The cells of the targets, and little more. The first cell also warms up all servers."""

QUICK = (Cell(64, 128, 128, _ALL), Cell(1, 40, 10, _ALL))
"""Shows whether everything runs, and about how fast."""

PROFILE = (Cell(64, 170, 1024, ("stream",)),)
"""A load for a profiler."""

_TINY = ("engine", "stream", "lean", "multiplex")
TINY = (Cell(1, 40, 4, _TINY), Cell(8, 40, 16, _TINY))
"""For a machine without a GPU."""

_TRANSPORTS = (
    "asyncllm",
    "engine",
    "stream",
    "http2-stream",
    "lean",
    "http2-lean",
    "multiplex",
    "http2-multiplex",
    "rust",
)
TRANSPORTS = (Cell(64, 128, 512, _TRANSPORTS), Cell(1, 40, 40, _TRANSPORTS), Cell(1, 170, 16, _TRANSPORTS))
"""Both transports of our server beside the engine in process. Start the sides inprocess, doherty, http2 and rust."""

FIRST_TOKEN = (Cell(64, 128, 2048, ("engine", "stream", "lean", "http2-stream", "http2-lean")),)
"""Many bursts, as the time to the first token varies between runs. Start the sides inprocess, doherty and http2."""

PLANS = {
    "full": FULL,
    "targets": TARGETS,
    "quick": QUICK,
    "tiny": TINY,
    "profile": PROFILE,
    "transports": TRANSPORTS,
    "first-token": FIRST_TOKEN,
}
ROUNDS = 2
"""The number of rounds in which each server gets its requests."""
