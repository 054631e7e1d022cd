"""Lets the server of the soak report the resources that it holds, on SIGUSR1. Python imports this file at its start."""

import asyncio
import gc
import json
import signal
import sys
import threading
from collections import Counter


def _tell(*_: object) -> None:
    gc.collect()
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    ours = {kind: count for kind, count in kinds.items() if kind.startswith(("doherty_", "grpc."))}
    pool = [thread for thread in threading.enumerate() if thread.name.startswith(("uvloop_", "asyncio_"))]
    line = {"event": "census", "tasks": len(asyncio.all_tasks()), "pool": len(pool), "objects": ours}
    sys.stderr.write(json.dumps(line) + "\n")


signal.signal(signal.SIGUSR1, _tell)
