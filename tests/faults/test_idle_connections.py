"""Connections that do nothing: they must not keep newcomers out, nor use up what the engine needs."""

import ipaddress
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty_service._settings import Settings
from doherty_service.transport import ConnectionGuard
from support.http2 import GREETING, RawConnection, raw_connection
from support.metrics import LISTEN, scrape
from support.security import add_key, connect_with
from support.server import ServerProcess, start_server
from support.wire import Caller

SHORT: dict[str, Any] = {"prompt": "Why?", "stopping": {"max_output_tokens": 2}}


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    """What this process starts may have so many files open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))"
    try:
        yield None if code else None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def connections_of(server: ServerProcess) -> int:
    """How many sockets the process has."""
    found = 0
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found
