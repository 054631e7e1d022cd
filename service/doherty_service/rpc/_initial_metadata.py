"""Sends the initial metadata of RPCs that the server itself may cancel."""

import asyncio

from doherty_service._call import Call

_SECONDS = 1.0
"""How long a cancelled task waits. They are sent at once, unless the caller does not read its socket."""


async def send_initial_metadata(call: Call) -> None:
    """Sends the initial metadata, which must happen before the first message of an RPC that we may cancel.

    If a write that sends them is cancelled, grpc.aio does not know that they were sent. It sends them again with the
    status, core refuses that, and the caller gets no status. So a cancelled task waits here until they were sent.
    """
    sending = asyncio.ensure_future(call.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.wait((sending,), timeout=_SECONDS)
        sending.add_done_callback(_forget_error)
        sending.cancel()
        raise


def _forget_error(sending: "asyncio.Future[None]") -> None:
    """Takes the exception of a caller that has left, which asyncio would log otherwise."""
    if not sending.cancelled():
        sending.exception()
