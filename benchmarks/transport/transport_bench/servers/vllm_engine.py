#!/usr/bin/env python3
"""Replaces vLLM's engine process: the synthetic engine with the messages of vLLM 0.33's EngineCore.

`vllm-rs serve MODEL --python THIS_FILE ... -- --engine-log LOG --engine-option KEY=VALUE...` starts it, and puts its
own arguments before those. The messages are msgpack over ZMQ: a handshake, then ADD and ABORT in one direction, and one
message with all outputs of a step in the other. The fields were determined from the release; only those that the
front-end needs are read and written. Every request ignores the end of sequence, as the load generator requests it from
all servers.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
import zmq
import zmq.asyncio

from doherty_engine import (
    Conversation,
    Engine,
    EngineRequest,
    FinishReason,
    Message,
    RequestHandle,
    Role,
    StepOutput,
    Stopping,
    create_engine,
)
from doherty_engine.synthetic._tokenizer import TOKEN_TEXT, decode  # vLLM's messages carry ids in place of texts
from transport_bench.engine_log import LoggedEngine

_IDENTITY = (0).to_bytes(2, "little")
"""The number of the only engine."""
_ADD, _ABORT, _UTILITY = b"\x00", b"\x01", b"\x03"
_FINISH_REASONS = {FinishReason.STOP: 0, FinishReason.LENGTH: 1}
_ERROR = 3
_WITHOUT_TEXT = TOKEN_TEXT.index(b"")
_CONTEXT_TOKENS = 8192
_READY: Mapping[str, object] = {
    "max_model_len": _CONTEXT_TOKENS,
    "num_gpu_blocks": 10_000,
    "block_size": 16,
    "dp_stats_address": None,
    "dtype": "bfloat16",
    "vllm_version": "0.33.0",
    "world_size": 1,
    "data_parallel_size": 1,
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "decode_context_parallel_size": 1,
    "data_parallel_rank": 0,
    "max_num_seqs": 256,
    "max_num_batched_tokens": _CONTEXT_TOKENS,
    "instance_id": "stand-in",
    "supports_lora": False,
    "max_loras": 0,
    "kv_cache_size_tokens": 160_000,
    "kv_cache_max_concurrency": 10.0,
    "effective_attention_block_size": 16,
}
_S = TypeVar("_S", bound="zmq.Socket[Any]")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Core:
    """Connects the front-end's messages and the engine."""

    def __init__(self, engine: Engine, outputs: "zmq.Socket[bytes]") -> None:
        """Passes outputs to `outputs`."""
        self._engine = engine
        self._outputs = outputs
        self._handles: dict[str, RequestHandle] = {}

    async def start(self) -> None:
        """Starts the engine."""
        await self._engine.start(self._send)

    def take(self, kind: bytes, body: bytes) -> None:
        """Processes a message from the front-end."""
        if kind == _ADD:
            self._add(_decode(body))
        elif kind == _ABORT:
            for key in _decode(body):
                # An aborted request gets no more outputs, not even a last one.
                if handle := self._handles.pop(key, None):
                    handle.abort()
        elif kind == _UTILITY:
            _client, call, method, _arguments = _decode(body)
            result = ["generate"] if method == "get_supported_tasks" else None
            self._outputs.send(_encode([0, [], None, time.monotonic(), [call, None, [None, result]]]))

    def _add(self, request: Sequence[Any]) -> None:
        key, prompt_ids, _features, sampling = request[:4]
        prompt = Conversation((Message(Role.USER, decode(prompt_ids).decode()),))
        stopping = Stopping(max_output_tokens=sampling["max_tokens"], ignore_eos=True)
        self._handles[key] = self._engine.submit(EngineRequest(key, prompt, stopping=stopping, token_ids=True))

    def _send(self, outputs: Sequence[StepOutput]) -> None:
        rows = [row for output in outputs if output.key in self._handles and (row := _row(output))]
        for output in outputs:
            if output.is_last:
                self._handles.pop(output.key, None)
        if rows:
            self._outputs.send(_encode([0, rows, None, time.monotonic()]))


def _row(output: StepOutput) -> list[object] | None:
    """Returns a step's output for one request; None if there is none."""
    if output.error is not None:
        return [output.key, [], None, None, None, _ERROR]
    ids = list(output.token_ids or ())
    if not output.text:
        # The end cuts off a sign of several bytes. The synthetic engine drops it, vLLM would write a replacement.
        ids = [_WITHOUT_TEXT] * len(ids)
    if output.finish is not None:
        return [output.key, ids, None, None, None, _FINISH_REASONS[output.finish.reason]]
    return [output.key, ids] if ids else None


async def serve(address: str, engine: Engine) -> None:
    """Performs the handshake with the front-end at `address`, and serves it until this process is ended."""
    context = zmq.asyncio.Context()
    greeting = _connect(context.socket(zmq.DEALER), address)
    await greeting.send(_encode({"status": "HELLO", "local": True, "headless": True}))
    addresses = _decode(await greeting.recv())["addresses"]
    await greeting.send(_encode({"status": "READY", "local": True, "headless": True}))
    # The outputs are sent within a step, which awaits nothing.
    core = Core(engine, _connect(zmq.Context().socket(zmq.PUSH), addresses["outputs"][0]))
    await core.start()
    inputs = _connect(context.socket(zmq.DEALER), addresses["inputs"][0])
    await inputs.send(_encode(_READY))
    while True:
        kind, body, *_ = await inputs.recv_multipart()
        core.take(kind, body)


def _connect(socket: "_S", address: str) -> "_S":
    """Connects a socket that never drops messages."""
    socket.setsockopt(zmq.IDENTITY, _IDENTITY)
    socket.set_hwm(0)
    socket.connect(address)
    return socket


def main() -> None:
    """Serves the front-end that started this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-parallel-address", required=True)
    parser.add_argument("--data-parallel-rpc-port", required=True)
    parser.add_argument("--engine-log", type=Path, required=True)
    parser.add_argument("--engine-option", action="append", default=[])
    asked, _of_vllm = parser.parse_known_args()
    options = dict(pair.split("=", 1) for pair in asked.engine_option)
    engine = LoggedEngine(create_engine("synthetic", options), asked.engine_log)
    address = f"tcp://{asked.data_parallel_address}:{asked.data_parallel_rpc_port}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(address, engine))


if __name__ == "__main__":
    main()
