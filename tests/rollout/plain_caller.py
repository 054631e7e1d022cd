"""A program with plain gRPC: `plain_caller.py ADDRESS...` makes 20 unary calls a second until its input ends.

It takes turns among the servers whose health service says SERVING, and repeats nothing. It writes each call that fails,
and at the end how many there were, to standard error, as lines of JSON. plain_caller.go does the same.
"""

import asyncio
import json
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.request_pb2 import GenerateRequest, Stopping

if TYPE_CHECKING:
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub

CALLS_PER_SECOND = 20
CONFIG = '{"loadBalancingConfig":[{"round_robin":{}}],"healthCheckConfig":{"serviceName":""}}'
STOPPING = Stopping(max_output_tokens=5, ignore_eos=True)


def write(event: str, **fields: Any) -> None:
    """Writes a line."""
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stderr.flush()


async def call(stub: "GenerationServiceAsyncStub", label: str) -> bool:
    """Makes a call, and returns whether it succeeded."""
    try:
        await stub.Generate(GenerateRequest(request_id=label, prompt="a", stopping=STOPPING), timeout=30)
    except grpc.aio.AioRpcError as error:
        write("failed", request_id=label, message=f"{error.code().name}: {error.details()}")
        return False
    return True


async def main(addresses: list[str]) -> None:
    """Calls at a steady rate."""
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with grpc.aio.insecure_channel("ipv4:" + ",".join(addresses), (("grpc.service_config", CONFIG),)) as channel:
        stub = GenerationServiceStub(channel)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        calls: list[asyncio.Task[bool]] = []
        write("calling")
        for number in count(1):
            calls.append(asyncio.create_task(call(stub, f"plain-{number}")))
            await asyncio.wait([ended], timeout=max(0.0, begun + number / CALLS_PER_SECOND - loop.time()))
            if ended.done():
                break
        succeeded = sum(await asyncio.gather(*calls))
    write("done", made=len(calls), failed=len(calls) - succeeded)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
