"""Keeps connections that have shown no key from using up those that there may be.

gRPC counts connections and refuses the newest ones, whoever holds the others, and has no hook to decide. So this looks
at the process's own sockets, and shuts those down that are too many: gRPC then closes them as if the peer had left.
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

_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_LOOK_SECONDS = 0.1
_LOOK_AGAIN_SECONDS = 0.02
"""While many come: whoever opens so many opens more."""

_MOST_SHARE = 0.5
"""Of the CPU time of the event loop's thread, for looking."""

_SLICE = 32
"""How many connections are looked at, or shut down, before others get a turn."""

_PEER_SHARE = 8
_LEAST_OF_PEER = 4
"""A peer may have an eighth of all connections without a key, but so many in any case."""

_NEWCOMER_SECONDS = 1.0
"""A connection has so long to show its key before the bound of its peer holds for it, if there is room."""

_TELL_SECONDS = 10.0

_OTHER_FILES = 512
"""How many files the process may have open beside its connections."""

_LARGEST = 2**31 - 1

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, eq=False)
class _Connection:
    """A connection that was accepted."""

    descriptor: int
    endpoint: tuple[str, int]
    """The address and the port of the peer, as the system tells them."""
    host: Address
    seen: float
    """When a look first found it, by `time.monotonic()`."""
    has_key: bool = False

    @property
    def peer(self) -> str:
        """Whoever is counted as one: an address, or of IPv6 the /64 that a subscriber gets."""
        if isinstance(self.host, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((self.host, 64), strict=False))
        return str(self.host)


class ConnectionGuard:
    """Shuts connections down that have shown no key, where a peer or all peers have too many of them."""

    def __init__(self, most: int, trusted: Sequence[Network] = ()) -> None:
        """There may be `most` connections; peers in the networks of `trusted` may have any share of them."""
        self._most = most
        self._most_of_peer = max(_LEAST_OF_PEER, most // _PEER_SHARE)
        self._most_newcomers = connections_to_accept(most) // 4
        self._trusted = tuple(trusted)
        self._with_key: set[str] = set()
        self._known: dict[tuple[str, int], _Connection] = {}
        """The connections that the last look found, by their endpoints."""
        self._is_crowded = False
        """Whether many without a key have come just now."""
        self._closed: Counter[str] = Counter()
        self._told = 0.0

    def accept(self, peer: str) -> None:
        """Notes that a call of a connection (gRPC's name of its peer) was let in."""
        self._with_key.add(peer)

    async def run(self, address: str) -> None:
        """Looks after the connections of `address` (HOST:PORT) until it is cancelled."""
        port = int(address.rpartition(":")[2])
        while True:
            begun = time.thread_time()
            surplus = await self._look(port)
            await _shut_down(surplus)
            spent = time.thread_time() - begun
            pause = _LOOK_AGAIN_SECONDS if self._is_crowded else _LOOK_SECONDS
            await asyncio.sleep(max(pause, spent / _MOST_SHARE))

    async def _look(self, port: int) -> list[_Connection]:
        """Finds those that are too many."""
        descriptors = _open_descriptors()
        if len(descriptors) <= self._most_of_peer and len(self._with_key) <= 2 * self._most:
            self._is_crowded = False
            return []  # the usual case: nobody can have too many
        self._known = await self._find(descriptors, port)
        fresh, self._with_key = self._with_key, set()
        accepted = {_endpoint(peer) for peer in fresh}
        for one in self._known.values():
            one.has_key = one.has_key or (one.host, one.endpoint[1]) in accepted
        now = time.monotonic()
        newcomers = sum(not one.has_key and _is_newcomer(one, now) for one in self._known.values())
        surplus = self.surplus(list(self._known.values()), now)
        self._is_crowded = bool(surplus) or newcomers > self._most_of_peer
        self._closed.update(one.peer for one in surplus)
        self._tell()
        return surplus

    async def _find(self, descriptors: Iterable[int], port: int) -> dict[tuple[str, int], _Connection]:
        """All connections of the port; those that were there before as they were known."""
        found: dict[tuple[str, int], _Connection] = {}
        now = time.monotonic()
        for index, descriptor in enumerate(descriptors):
            await _let_others_in(index)
            if (borrowed := _borrow(descriptor)) is None:
                continue
            try:
                endpoint = borrowed.getpeername()[:2]
                known = self._known.get(endpoint)
                if known is not None:
                    known.descriptor = descriptor
                    found[endpoint] = known
                elif borrowed.getsockname()[1:2] == (port,):
                    found[endpoint] = _Connection(descriptor, endpoint, _address(endpoint[0]), now)
            except OSError:
                pass  # it listens, or is closed by now
            finally:
                borrowed.detach()
        return found

    def surplus(self, connections: Sequence[_Connection], now: float) -> list[_Connection]:
        """Those that are too many: without a key the oldest, for a newcomer is about to show its key; else the newest.

        As long as those without a key are no more than a quarter of what gRPC accepts, newcomers are not held to the
        bound of their peer: somebody behind the same address may open them faster than others can show their key.
        """
        newest_first = sorted(connections, key=lambda one: -one.seen)
        strangers = [one for one in newest_first if not one.has_key]
        with_key = [one for one in newest_first if one.has_key]
        by_peer: defaultdict[str, int] = defaultdict(int)
        # A quarter of all stays free, as far as those with a key leave it; an eighth is always for those without.
        most = max(self._most // _PEER_SHARE, self._most * 3 // 4 - len(with_key))
        kept, surplus = 0, with_key[: max(0, len(with_key) - self._most)]
        for one in strangers:
            by_peer[one.peer] += 1
            is_spared = kept < self._most_newcomers and _is_newcomer(one, now)
            is_bound = by_peer[one.peer] > self._most_of_peer and not self._is_trusted(one.host)
            if kept >= most or (is_bound and not is_spared):
                surplus.append(one)
            else:
                kept += 1
        return surplus

    def _is_trusted(self, host: Address) -> bool:
        return any(host in network for network in self._trusted)

    def _tell(self) -> None:
        now = time.monotonic()
        if self._closed and now - self._told > _TELL_SECONDS:
            peers = [peer for peer, _ in self._closed.most_common(3)]
            log_warning("connections_closed", connections=self._closed.total(), peers=peers)
            self._closed.clear()
            self._told = now


def _is_newcomer(connection: _Connection, now: float) -> bool:
    return now - connection.seen < _NEWCOMER_SECONDS


def room_for_connections(wanted: int) -> int:
    """How many connections the process's limit of open files leaves room for, up to `wanted`.

    Raises the soft limit as far as it may be: many systems have 1024, which the engine needs, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + _OTHER_FILES  # `connections_to_accept`
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # macOS has another limit, which it does not tell
        limit = soft
    if _room(limit) >= wanted:
        return wanted
    log_warning("few_files", limit=limit, wanted=wanted + _OTHER_FILES, connections=_room(limit))
    return _room(limit)


def connections_to_accept(most: int) -> int:
    """How many connections gRPC may accept where there may be `most`.

    It refuses the newest of more, so there is room for those that come until the oldest are found and closed.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(2 * most, _LARGEST if soft == resource.RLIM_INFINITY else max(most, _room(soft)), _LARGEST)


def _room(limit: int) -> int:
    """How many connections there may be where so many files may be open."""
    return max(1, limit - min(_OTHER_FILES, limit // 2))


def _open_descriptors() -> Sequence[int]:
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]  # noqa: PTH208 - Path.iterdir costs several times as much
    except OSError:  # there is no descriptor left to list them with, or no /proc
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _borrow(descriptor: int) -> socket.SocketType | None:
    """A descriptor of core's as a socket, which is to be detached and not closed; None if it is no socket.

    The plain type and no context manager: together they would cost three times as much.
    """
    try:
        return socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, descriptor)
    except OSError:
        return None


async def _let_others_in(index: int) -> None:
    if index % _SLICE == _SLICE - 1:
        await asyncio.sleep(0)


async def _shut_down(connections: Sequence[_Connection]) -> None:
    """Ends connections in both directions, those whose descriptor is still their own."""
    for index, one in enumerate(connections):
        await _let_others_in(index)
        if (borrowed := _borrow(one.descriptor)) is None:
            continue
        try:
            if borrowed.getpeername()[:2] == one.endpoint:
                borrowed.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed by now
        finally:
            borrowed.detach()


def _endpoint(peer: str) -> tuple[Address, int]:
    """The address and the port of gRPC's name of a peer, as "ipv4:127.0.0.1:50000" or "ipv6:%5B::1%5D:50000"."""
    host, _, port = unquote(peer.partition(":")[2]).rpartition(":")
    return _address(host.strip("[]")), int(port)


@lru_cache(maxsize=4096)
def _address(host: str) -> Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
