"""Reports that a server is ready."""

import json
import sys


def tell_ready(address: str) -> None:
    """Writes the line that `doherty serve` also writes to its log."""
    sys.stderr.write(json.dumps({"event": "ready", "address": address}) + "\n")
    sys.stderr.flush()
