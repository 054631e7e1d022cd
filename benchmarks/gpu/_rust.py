"""The client of vLLM's Rust front-end (`vllm-rs serve ... --grpc-port`): what a measurement needs of its contract.

The numbers of the fields are those of the package `vllm` in vLLM's repository, which are the same in 0.26 and 0.33; the
service is called Generate in 0.26, and Inference in 0.33.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from time import perf_counter
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from _records import Order, Record, checked
from _shape import as_text

_FIELD = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "bool": _FIELD.TYPE_BOOL,
    "float": _FIELD.TYPE_FLOAT,
}
_MESSAGES = {
    "GenerateRequest": {
        "request_id": ("string", 1),
        "model": ("string", 2),
        "text": ("string", 3),
        "temperature": ("float", 5),
        "stopping": ("StoppingCriteria", 8),
    },
    "StoppingCriteria": {"max_new_tokens": ("uint32", 1), "ignore_eos": ("bool", 6)},
    "GenerateResponse": {"outputs": ("SequenceOutput", 2)},
    "SequenceOutput": {"text": ("string", 2), "num_tokens": ("uint32", 3)},
}


@asynccontextmanager
async def rust(order: Order) -> AsyncIterator[Any]:
    """Makes requests to vLLM's Rust front-end."""
    request_type, response_type = _message("GenerateRequest"), _message("GenerateResponse")
    service = "Generate" if version("vllm").startswith("0.26.") else "Inference"
    async with grpc.aio.insecure_channel(order.target) as channel:
        generate = channel.unary_stream(
            f"/vllm.{service}/GenerateStream",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )

        async def ask(prompt: list[int] | str, seed: int, tokens: int) -> Record:
            record, count = Record(perf_counter()), 0
            request = request_type(
                request_id=f"{seed}-{record.begun}",
                model="m",
                text=as_text(prompt),
                temperature=order.temperature,
                stopping={"max_new_tokens": tokens, "ignore_eos": True},
            )
            async for reply in generate(request):
                if reply.outputs.num_tokens:
                    record.arrivals.append(perf_counter())
                    count += reply.outputs.num_tokens
            return checked(record, count, tokens)

        yield ask


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"vllm.{name}"))


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="vllm.proto", package="vllm", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (kind, number) in fields.items():
            added = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
            if kind in _KINDS:
                added.type = _KINDS[kind]
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".vllm.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _pool()
