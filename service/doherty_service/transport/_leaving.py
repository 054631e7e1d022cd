"""Waits until the last replies are on their way."""

import asyncio

_RPC_TASK = "rpc_task"
"""The name of the task that grpc.aio has for each RPC. It ends when core has sent the status and closed the call."""


async def replies_sent(timeout: float) -> None:  # noqa: ASYNC109 - leaving must not take longer, whatever the cause
    """Returns when the RPCs that are open now are closed, but not later than after `timeout` seconds."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == _RPC_TASK]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
