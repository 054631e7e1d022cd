"""Runs the gateway SMG in front of servers that have a port for it."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from doherty_engine.synthetic._tokenizer import TOKEN_NAME
from support.hugging_face import write_folder
from support.ports import free_port
from support.programs import program

_START_SECONDS = 60
_LOOK_SECONDS = 0.1


@contextmanager
def start_smg(doors: Sequence[str], *flags: str) -> Iterator[str]:
    """Runs SMG until the end of the block. Yields the base URL of its HTTP API when it can serve all workers."""
    port, metrics = free_port(), free_port()
    command = [
        *(program("smg"), "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics), "--log-level", "warn"),
        *("--worker-urls", *(f"grpc://{door}" for door in doors)),
        *("--health-check-interval-secs", "1", "--health-failure-threshold", "1", *flags),
    ]
    with ExitStack() as stack:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_for_workers(process, f"http://127.0.0.1:{port}", len(doors))
        yield f"http://127.0.0.1:{port}"


def _wait_for_workers(process: "subprocess.Popen[bytes]", base: str, count: int) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends:
        with suppress(urllib.error.URLError, ConnectionError):
            served = [worker["model_id"] for worker in _listed(base, "workers") if worker["is_healthy"]]
            # SMG registers the tokenizer of a worker's model later than the worker.
            known = {tokenizer["name"] for tokenizer in _listed(base, "v1/tokenizers")}
            if len(served) == count and known.issuperset(served):
                return
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            break
    raise AssertionError("SMG has ended, or has not registered its workers in time")


def _listed(base: str, path: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{base}/{path}", timeout=5) as reply:  # noqa: S310 - on loopback
        listed: list[dict[str, Any]] = json.load(reply)[path.rpartition("/")[2]]
    return listed


def write_synthetic_tokenizer(folder: Path) -> Path:
    """Writes the vocabulary of the synthetic engine as the files of a tokenizer, with which SMG detokenizes answers."""
    # GPT-2 represents bytes by letters; visible characters represent themselves.
    visible = (*range(33, 127), *range(161, 173), *range(174, 256))
    others = count(256)
    letters = [chr(byte if byte in visible else next(others)) for byte in range(256)]
    vocabulary = {"".join(letters[byte] for byte in name): index for index, name in enumerate(TOKEN_NAME)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return write_folder(folder, tokenizer).path
