"""Waits at shutdown until the last replies are sent."""

import asyncio

_RPC_TASK = "rpc_task"
"""The name of grpc.aio's task for each RPC. It ends when core has sent the status and closed the call."""


async def replies_sent(timeout: float) -> None:  # noqa: ASYNC109 - it returns at the timeout, without an error
    """Waits until the RPCs that are open now are closed, at most for `timeout` seconds."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == _RPC_TASK]
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
