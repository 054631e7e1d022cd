"""Doherty, as `doherty serve` starts it: `python -m transport_bench.servers.doherty LOG [FLAG...]`.

The engine writes to the file LOG. The flags are those of `doherty serve`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import doherty_engine
from doherty_engine import Engine, create_engine
from transport_bench.engine_log import LoggedEngine


def main() -> None:
    """Serves until SIGTERM."""
    log = Path(sys.argv[1])

    def logged(name: str, options: Mapping[str, str] | None = None) -> Engine:
        return LoggedEngine(create_engine(name, options), log)

    with patch.object(doherty_engine, "create_engine", logged):
        # The server takes its `create_engine` when it is imported.
        from doherty_service.command import serve  # noqa: PLC0415

        serve(sys.argv[2:], prog_name="doherty serve")


if __name__ == "__main__":
    main()
