"""Makes the connections of a client when it is first used."""

from typing import TYPE_CHECKING

from doherty._aio._pool import AsyncPool
from doherty._core._errors import ClientClosedError

if TYPE_CHECKING:
    from doherty._core._settings import Settings


class LazyPool:
    """The pool of a client, which the first call makes, because a channel needs the event loop that it will run on."""

    def __init__(self, settings: "Settings", *, multiplex: bool | int, owner: "LazyPool | None" = None) -> None:
        """Needs no event loop.

        Args:
            settings: Those of the client.
            multiplex: Whether requests share one RPC, or how many do.
            owner: Has the connections, if this client only uses them.

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
        """Other settings on the same connections."""
        return LazyPool(settings, multiplex=multiplex, owner=self._owner or self)

    def connected(self) -> AsyncPool:
        """The pool, for a call.

        Raises:
            ClientClosedError: It was closed.
            EventLoopError: Another event loop runs than the one that it was made on, or none.
            ForkError: The process is not the one that made it.
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
