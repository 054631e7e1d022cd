"""Which cells are measured, and with how many requests: as many as ten minutes on a lent GPU allow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One load, which every side gets in turns."""

    streams: int
    tokens: int
    requests: int
    """Of each side, in all rounds together."""
    drivers: tuple[str, ...]
    temperature: float = 0.0
    top_p: float = 1.0

    @property
    def name(self) -> str:
        """For tables and files."""
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
"""What the targets ask for comes first."""

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
"""What the targets ask for, and little more; the first cell also warms all sides up."""

QUICK = (Cell(64, 128, 128, _ALL), Cell(1, 40, 10, _ALL))
"""Whether everything runs, and about how fast."""

PROFILE = (Cell(64, 170, 1024, ("stream",)),)
"""Something to look at with a profiler."""

TINY = (
    Cell(1, 40, 4, ("engine", "stream", "multiplex")),
    Cell(8, 40, 16, ("engine", "stream", "multiplex")),
)
"""For a machine without a GPU."""

_TRANSPORTS = ("asyncllm", "engine", "stream", "http2-stream", "multiplex", "http2-multiplex")
TRANSPORTS = (Cell(64, 128, 512, _TRANSPORTS), Cell(1, 40, 40, _TRANSPORTS), Cell(1, 170, 16, _TRANSPORTS))
"""Both transports of our server beside the engine in process. Start the sides inprocess, doherty and http2."""

PLANS = {"full": FULL, "targets": TARGETS, "quick": QUICK, "tiny": TINY, "profile": PROFILE, "transports": TRANSPORTS}
ROUNDS = 2
"""In how many turns each side gets its requests."""
