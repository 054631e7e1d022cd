"""Downloads a model's weights from the hub, and checks that they are complete."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import TIMEOUT, open_repository
from doherty_engine.text import ModelFolder

_EXCLUDED = ["*.bin", "*.pt", "*.pth"]
"""Copies of the same weights in formats that can run code when they are loaded."""
_INDEX = "model.safetensors.index.json"
_HEADER = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000
"""The maximum that the safetensors format allows."""
_CHUNK = 1 << 24


def fetch_weights(folder: ModelFolder, report: Callable[[str], None]) -> None:
    """Downloads the missing files of a model on the hub, and resumes interrupted downloads. This blocks.

    huggingface_hub shows its progress on standard error. If the model is a local folder, nothing happens.

    Raises:
        EngineSetupError: The weights cannot be downloaded.
    """
    if not folder.revision:
        return
    report(f"fetching {folder.model} {folder.revision}")
    try:
        open_repository(folder.model, folder.revision, extra="trtllm").fetch(without=_EXCLUDED)
    except Exception as error:  # huggingface_hub raises its HTTP library's errors, and has changed that library
        raise EngineSetupError(
            f"The weights of {folder.model} cannot be downloaded from the hub ({first_line(error)}); run the command "
            "again to resume the download."
        ) from error


def check_weights(folder: ModelFolder) -> int:
    """Checks that all files of weights are present and complete; returns their total size in bytes.

    The header of a safetensors file contains its length, so this reads only the headers.

    Raises:
        EngineSetupError: A file is missing, damaged or incomplete.
    """
    return sum(_check_file(folder, path) for path in _files(folder))


def check_digests(folder: ModelFolder) -> int:
    """Compares the SHA-256 of each file of weights with the hub's; returns the number of files compared.

    This reads all weights. It returns 0 if the model is a local folder, or if the hub cannot be reached; the files are
    complete even then, because `check_weights` checks that.

    Raises:
        EngineSetupError: A file differs.
    """
    if not folder.revision:
        return 0
    compared = 0
    for name, digest in _hub_digests(folder).items():
        path = folder.path / name
        if path.suffix != ".safetensors" or not path.is_file():
            continue
        if _digest(path) != digest:
            raise EngineSetupError(
                f"{path} differs from the file on the hub; delete {path.resolve()} and run the command again to "
                "download it again."
            )
        compared += 1
    return compared


def weights_identity(folder: ModelFolder) -> str:
    """Identifies the weights in the key of a build: the commit on the hub, or a digest of a local folder's listing."""
    if folder.revision:
        return folder.revision
    digest = hashlib.sha256()
    for path in sorted([*folder.path.glob("*.safetensors"), *folder.path.glob("*.json")]):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"local-{digest.hexdigest()[:12]}"


def _files(folder: ModelFolder) -> Iterator[Path]:
    index = folder.read_json(_INDEX)
    if index:
        yield from (folder.path / name for name in sorted(set(index["weight_map"].values())))
        return
    files = sorted(folder.path.glob("*.safetensors"))
    if not files:
        raise EngineSetupError(
            f"The model {folder.model} has no weights in safetensors format; choose another model, or convert it."
        )
    yield from files


def _check_file(folder: ModelFolder, path: Path) -> int:
    message = f"The weights {path.name} of {folder.model} are {{}}; download them again with `doherty engine prepare`."
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = _HEADER.unpack(file.read(_HEADER.size))
            header: dict[str, Any] = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
    except FileNotFoundError:
        raise EngineSetupError(message.format("missing")) from None
    except (OSError, ValueError, struct.error) as error:
        raise EngineSetupError(message.format("damaged")) from error
    end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
    if _HEADER.size + length + end != size:
        raise EngineSetupError(message.format("incomplete"))
    return size


def _hub_digests(folder: ModelFolder) -> Mapping[str, str]:
    hub = import_module("huggingface_hub")
    try:
        info = hub.HfApi().model_info(folder.model, revision=folder.revision, files_metadata=True, timeout=TIMEOUT)
    except Exception:  # noqa: BLE001  as above; the machine is probably offline
        return {}
    return {file.rfilename: file.lfs["sha256"] for file in info.siblings if file.lfs}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
