"""Makes a copy of a draft head with more positions, as many as the model's context has.

Published EAGLE-3 heads have `max_position_embeddings: 2048`. Up to vLLM 0.26, the table of the head's rotary embedding
has that length, but is indexed with the model's positions. The first longer request reads beyond the table, and vLLM's
process ends with all requests (vLLM's issue 48894). Later versions increase the number themselves.
"""

import hashlib
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import open_repository
from doherty_engine.models._cache import default_cache
from doherty_engine.text import ModelFolder


def extend_positions(folder: ModelFolder, positions: int) -> Path:
    """Makes a folder with links to the head's files and a changed config.json. This blocks, and downloads the weights.

    The same head always gets the same path, because the path is part of the key of vLLM's compilation cache.

    Raises:
        EngineSetupError: The head cannot be downloaded, or the folder cannot be written.
    """
    source = fetch_head(folder)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    layers = config.get("transformer_layer_config", config)
    layers["max_position_embeddings"] = positions
    text = json.dumps(config, indent=2)
    copy = default_cache("heads") / f"{source.name}-{hashlib.sha256(f'{source} {text}'.encode()).hexdigest()[:16]}"
    try:
        copy.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.name != "config.json":
                with suppress(FileExistsError):
                    (copy / file.name).symlink_to(file)
        _write(copy / "config.json", text)
    except OSError as error:
        raise EngineSetupError(
            f"The head {folder.model} needs a changed copy of its config.json to draft up to position {positions}, but "
            f"the copy cannot be written ({first_line(error)}); set XDG_CACHE_HOME to a writable folder."
        ) from error
    return copy


def _write(path: Path, text: str) -> None:
    """Writes a file atomically, because another server may read it at the same time."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)


def fetch_head(folder: ModelFolder) -> Path:
    """Downloads the weights of a head that is on the hub, and returns the head's folder.

    Raises:
        EngineSetupError: It cannot be downloaded.
    """
    if not folder.revision:
        return folder.path
    try:
        return open_repository(folder.model, folder.revision, extra="vllm").fetch()
    except Exception as error:  # huggingface_hub raises its HTTP library's errors, and has changed that library
        raise EngineSetupError(
            f"The head {folder.model} cannot be downloaded from the hub ({first_line(error)}); check the network."
        ) from error
