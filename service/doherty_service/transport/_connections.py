"""Keeps connections without a valid key from using up the maximum number of connections.

gRPC limits connections by refusing new ones, and has no hook to choose which. So the guard inspects the sockets of the
process and shuts down surplus ones; gRPC then closes them as if the peer had left.
"""

import asyncio
import ipaddress
import os
import resource
import socket
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from doherty_service.telemetry import log_warning
from doherty_service.transport._file_limit import connections_to_accept

_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_CHECK_SECONDS = 0.1
_CROWDED_CHECK_SECONDS = 0.02
"""The interval while many connections without a key are opened."""

_MAX_CPU_SHARE = 0.5
"""Maximum share of the event loop thread's CPU time for the checks."""

_SLICE = 32
"""Connections that are inspected or shut down in one turn of the event loop."""

_PEER_SHARE = 8
_MIN_OF_PEER = 4
"""A peer may have an eighth of all connections without a key, but at least this many."""

_NEWCOMER_SECONDS = 1.0
"""A new connection is exempt from its peer's limit for this time, if there is room, so that it can send its key."""

_SETTLING_SECONDS = 0.1
"""A new connection is exempt from all limits for this time, if there is room. Connections that a check finds together
look equally old to it: the only one whose caller has a key would otherwise be shut down with the others."""

_LOG_SECONDS = 10.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, eq=False)
class _Connection:
    """An open connection."""

    descriptor: int
    endpoint: tuple[str, int]
    """The peer's address and port, as the system reports them."""
    host: Address
    seen: float
    """When a check first found it (`time.monotonic()`)."""
    has_key: bool = False

    @property
    def address(self) -> "tuple[Address, int]":
        """The peer's address and port, as `_addresses` reads them from gRPC's names."""
        return self.host, self.endpoint[1]

    @property
    def peer(self) -> str:
        """The unit to which limits apply: an IPv4 address, or an IPv6 /64, which is what a subscriber gets."""
        if isinstance(self.host, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((self.host, 64), strict=False))
        return str(self.host)


_WITH_ADDRESS = ("ipv4:", "ipv6:")
"""The beginning of gRPC's names of peers with an address."""


class ConnectionGuard:
    """Shuts down connections without a valid key if a peer, or all peers together, have too many of them."""

    def __init__(self, max_connections: int, trusted: Sequence[Network] = ()) -> None:
        """At most `max_connections` are allowed. Peers in `trusted` networks have no limit of their own."""
        self._max_connections = max_connections
        self._max_of_peer = max(_MIN_OF_PEER, max_connections // _PEER_SHARE)
        self._accepted_by_grpc = connections_to_accept(max_connections)
        self._trusted = tuple(trusted)
        self._with_key: set[str] = set()
        self._unwanted: set[str] = set()
        """Peers whose connections the next check shuts down, unless a caller on them has a key."""
        self._known: dict[tuple[str, int], _Connection] = {}
        """The connections that the last check found, by endpoint."""
        self._is_crowded = False
        """Whether many connections without a key were opened just now."""
        self._closed: Counter[str] = Counter()
        """Connections that were shut down since the last log line, by peer."""
        self._logged = 0.0

    def accept(self, peer: str) -> None:
        """Records that a call from a peer (gRPC's name of a connection) passed authentication.

        If the caller has closed the connection, gRPC may have forgotten its address: the name is empty then.
        """
        if peer.startswith(_WITH_ADDRESS):
            self._with_key.add(peer)

    def close(self, peer: str) -> None:
        """Shuts down the connection of a peer soon, unless a call on it passed authentication."""
        if peer.startswith(_WITH_ADDRESS):
            self._unwanted.add(peer)

    async def run(self, address: str) -> None:
        """Guards the connections of `address` (HOST:PORT). Runs until it is cancelled."""
        port = int(address.rpartition(":")[2])
        while True:
            start = time.thread_time()
            surplus = await self._check(port)
            await self._shut_down(surplus)
            cpu_seconds = time.thread_time() - start
            pause = _CROWDED_CHECK_SECONDS if self._is_crowded else _CHECK_SECONDS
            await asyncio.sleep(max(pause, cpu_seconds / _MAX_CPU_SHARE))

    async def _check(self, port: int) -> list[_Connection]:
        """Returns the surplus connections."""
        descriptors = _open_descriptors()
        few_connections = len(descriptors) <= self._max_of_peer and len(self._with_key) <= 2 * self._max_connections
        if few_connections and not self._unwanted:
            self._is_crowded = False
            self._known = {endpoint: known for endpoint, known in self._known.items() if known.has_key}
            return []  # the usual case: no peer can have too many
        self._known = await self._find(descriptors, port)
        with_key, self._with_key = self._with_key, set()
        accepted = _addresses(with_key)
        for connection in self._known.values():
            connection.has_key = connection.has_key or connection.address in accepted
        now = time.monotonic()
        newcomers = sum(not known.has_key and _is_newcomer(known, now) for known in self._known.values())
        unwanted, self._unwanted = _addresses(self._unwanted), set()
        surplus = self.surplus(list(self._known.values()), now)
        surplus += [
            connection
            for connection in self._known.values()
            if connection.address in unwanted and not connection.has_key and connection not in surplus
        ]
        self._is_crowded = bool(surplus) or newcomers > self._max_of_peer
        self._closed.update(connection.peer for connection in surplus)
        self._log()
        return surplus

    async def _find(self, descriptors: Iterable[int], port: int) -> dict[tuple[str, int], _Connection]:
        """Returns all connections of the port. Known connections keep their object."""
        connections: dict[tuple[str, int], _Connection] = {}
        now = time.monotonic()
        for index, descriptor in enumerate(descriptors):
            await _yield_after_slice(index)
            if (borrowed := _borrow(descriptor)) is None:
                continue
            try:
                endpoint = borrowed.getpeername()[:2]
                known = self._known.get(endpoint)
                if known is not None:
                    known.descriptor = descriptor
                    connections[endpoint] = known
                elif borrowed.getsockname()[1:2] == (port,):
                    connections[endpoint] = _Connection(descriptor, endpoint, _address(endpoint[0]), now)
            except OSError:
                pass  # the socket listens, or it is closed by now
            finally:
                borrowed.detach()
        return connections

    def surplus(self, connections: Sequence[_Connection], now: float) -> list[_Connection]:
        """Returns the connections to shut down.

        Of those without a key, these are the oldest ones, because a new one is about to send its key; of those with a
        key, the newest ones. New connections are exempt from the limit of their peer as long as the kept connections
        without a key are at most a quarter of what gRPC accepts. Otherwise, one client could open connections faster
        than others behind the same address can send their keys. Connections are exempt from all limits at first, unless
        gRPC may soon accept none.
        """
        newest_first = sorted(connections, key=lambda connection: -connection.seen)
        without_key = [connection for connection in newest_first if not connection.has_key]
        with_key = [connection for connection in newest_first if connection.has_key]
        by_peer: defaultdict[str, int] = defaultdict(int)
        # A quarter of all connections stays free for callers with a key, but an eighth is always for those without.
        max_without_key = max(self._max_connections // _PEER_SHARE, self._max_connections * 3 // 4 - len(with_key))
        has_room = len(connections) <= self._accepted_by_grpc * 3 // 4
        kept, surplus = 0, with_key[: max(0, len(with_key) - self._max_connections)]
        for connection in without_key:
            by_peer[connection.peer] += 1
            is_exempt = kept < self._accepted_by_grpc // 4 and _is_newcomer(connection, now)
            exceeds = by_peer[connection.peer] > self._max_of_peer and not self._is_trusted(connection.host)
            settles = has_room and now - connection.seen < _SETTLING_SECONDS
            if not settles and (kept >= max_without_key or (exceeds and not is_exempt)):
                surplus.append(connection)
            else:
                kept += 1
        return surplus

    async def _shut_down(self, connections: Sequence[_Connection]) -> None:
        """Shuts down connections, unless a caller on them was accepted meanwhile, or their descriptor has changed."""
        for start in range(0, len(connections), _SLICE):
            accepted = _addresses(self._with_key)
            for connection in connections[start : start + _SLICE]:
                if connection.address not in accepted:
                    _shut_down(connection)
            await asyncio.sleep(0)

    def _is_trusted(self, host: Address) -> bool:
        return any(host in network for network in self._trusted)

    def _log(self) -> None:
        now = time.monotonic()
        if self._closed and now - self._logged > _LOG_SECONDS:
            peers = [peer for peer, _ in self._closed.most_common(3)]
            log_warning("connections_closed", connections=self._closed.total(), peers=peers)
            self._closed.clear()
            self._logged = now


def _is_newcomer(connection: _Connection, now: float) -> bool:
    return now - connection.seen < _NEWCOMER_SECONDS


def _open_descriptors() -> Sequence[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]  # noqa: PTH208 - Path.iterdir costs several times as much
    except OSError:  # no descriptor is left to open the directory, or there is no /proc
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _borrow(descriptor: int) -> socket.SocketType | None:
    """Wraps a descriptor of gRPC's core in a socket object; None if it is no socket. Detach it, do not close it.

    `socket.socket` with a context manager would cost three times as much.
    """
    try:
        return socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)
    except OSError:
        return None


async def _yield_after_slice(index: int) -> None:
    if index % _SLICE == _SLICE - 1:
        await asyncio.sleep(0)


def _shut_down(connection: _Connection) -> None:
    if (borrowed := _borrow(connection.descriptor)) is None:
        return
    try:
        if borrowed.getpeername()[:2] == connection.endpoint:
            borrowed.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already closed
    finally:
        borrowed.detach()


def _addresses(peers: Iterable[str]) -> set[tuple[Address, int]]:
    return {_endpoint(peer) for peer in peers}


def _endpoint(peer: str) -> tuple[Address, int]:
    """Parses gRPC's name of a peer, for example "ipv4:127.0.0.1:50000" or "ipv6:%5B::1%5D:50000"."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return _address(host.strip("[]")), int(port)


@lru_cache(maxsize=4096)
def _address(host: str) -> Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
