"""Creates the connections of a client when it is first used."""

from typing import TYPE_CHECKING

from doherty._aio._pool import AsyncPool
from doherty._core._errors import ClientClosedError

if TYPE_CHECKING:
    from doherty._core._settings import Settings


class LazyPool:
    """The pool of a client. The first call creates it, because a channel needs the event loop on which it will run."""

    def __init__(self, settings: "Settings", *, multiplex: bool | int, owner: "LazyPool | None" = None) -> None:
        """Needs no event loop.

        Args:
            settings: The client's settings.
            multiplex: Whether requests share an RPC, or how many share one.
            owner: The pool that owns the connections, if this client only uses them.

        Raises:
            ValueError: `multiplex` is negative.
        """
        if multiplex < 0:
            raise ValueError(f"multiplex= is a bool or a number of requests, not {multiplex}.")
        self.settings = settings
        self.multiplex = multiplex
        self._owner = owner
        self._pool: AsyncPool | None = None
        self._closed = False

    def derive(self, settings: "Settings", *, multiplex: bool | int) -> "LazyPool":
        """Returns a pool with other settings on the same connections."""
        return LazyPool(settings, multiplex=multiplex, owner=self._owner or self)

    def connected(self) -> AsyncPool:
        """Returns the pool for a call.

        Raises:
            ClientClosedError: The client was closed.
            EventLoopError: No event loop runs, or not the one of the client.
            ForkError: Another process created the client.
        """
        if self._pool is None:
            if self._closed:
                raise ClientClosedError("The client is closed: make a new one.")
            owner = self._owner.connected() if self._owner else None
            self._pool = AsyncPool(self.settings, multiplex=self.multiplex, owner=owner)
        self._pool.check_loop()
        return self._pool

    async def close(self) -> None:
        """Closes the pool, if there is one."""
        self._closed = True
        if self._pool is not None:
            await self._pool.close()
