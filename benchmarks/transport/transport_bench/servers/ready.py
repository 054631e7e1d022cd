"""How a server tells that it is there."""

import json
import sys


def tell_ready(address: str) -> None:
    """Writes the line that `doherty serve` has in its log, too."""
    sys.stderr.write(json.dumps({"event": "ready", "address": address}) + "\n")
    sys.stderr.flush()
