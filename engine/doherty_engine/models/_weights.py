"""A model's weights: fetched from the hub, and found whole."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import PATIENCE, open_repository
from doherty_engine.text import ModelFolder

_LEFT_OUT = ["*.bin", "*.pt", "*.pth"]
"""The same weights again, in formats that run code when they are read."""
_INDEX = "model.safetensors.index.json"
_HEADER = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000
"""What the format itself allows."""
_CHUNK = 1 << 24


def fetch_weights(folder: ModelFolder, report: Callable[[str], None]) -> None:
    """Downloads what is missing of a model on the hub, from where an earlier try broke off; blocks.

    The hub's client draws its progress on standard error. A folder of the user's own is left as it is.

    Raises:
        EngineSetupError: it cannot be had.
    """
    if not folder.revision:
        return
    report(f"fetching {folder.model} {folder.revision}")
    try:
        open_repository(folder.model, folder.revision, extra="trtllm").fetch(without=_LEFT_OUT)
    except Exception as error:  # the hub's client lets the errors of its HTTP library through, which changed its name
        raise EngineSetupError(
            f"The weights of {folder.model} cannot be had from the hub ({first_line(error)}); what has arrived is "
            "kept, so run it again."
        ) from error


def check_weights(folder: ModelFolder) -> int:
    """Makes sure that every file of weights is there from beginning to end, and returns their bytes.

    A file of safetensors says in its first bytes how long it is, so this reads kilobytes.

    Raises:
        EngineSetupError: one is missing, or cut off.
    """
    return sum(_check_file(folder, path) for path in _files(folder))


def check_digests(folder: ModelFolder) -> int:
    """Compares weights from the hub with the SHA-256 that it has of each, and returns how many it compared; reads all.

    None where the hub cannot be asked: what has been downloaded is complete all the same (`check_weights`).

    Raises:
        EngineSetupError: a file differs.
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
                f"{path} is not what the hub has; delete {path.resolve()} and run it again to download it anew."
            )
        compared += 1
    return compared


def weights_identity(folder: ModelFolder) -> str:
    """What an engine built of these weights may be used for: the commit, or what the user's folder looks like."""
    if folder.revision:
        return folder.revision
    seen = hashlib.sha256()
    for path in sorted([*folder.path.glob("*.safetensors"), *folder.path.glob("*.json")]):
        status = path.stat()
        seen.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"local-{seen.hexdigest()[:12]}"


def _files(folder: ModelFolder) -> Iterator[Path]:
    index = folder.read_json(_INDEX)
    if index:
        yield from (folder.path / name for name in sorted(set(index["weight_map"].values())))
        return
    files = sorted(folder.path.glob("*.safetensors"))
    if not files:
        raise EngineSetupError(
            f"The model {folder.model} has no weights in safetensors; name one that has, or convert it."
        )
    yield from files


def _check_file(folder: ModelFolder, path: Path) -> int:
    broken = f"The weights {path.name} of {folder.model} are {{}}; get them anew, as with `doherty engine prepare`."
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = _HEADER.unpack(file.read(_HEADER.size))
            header: dict[str, Any] = json.loads(file.read(min(length, _LARGEST_HEADER)))
    except FileNotFoundError:
        raise EngineSetupError(broken.format("missing")) from None
    except (OSError, ValueError, struct.error) as error:
        raise EngineSetupError(broken.format("damaged")) from error
    end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
    if _HEADER.size + length + end != size:
        raise EngineSetupError(broken.format("cut off"))
    return size


def _hub_digests(folder: ModelFolder) -> Mapping[str, str]:
    hub = import_module("huggingface_hub")
    try:
        info = hub.HfApi().model_info(folder.model, revision=folder.revision, files_metadata=True, timeout=PATIENCE)
    except Exception:  # noqa: BLE001  as above: offline, most likely, and the files are complete
        return {}
    return {file.rfilename: file.lfs["sha256"] for file in info.siblings if file.lfs}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
