"""A copy of a head whose table of positions is as long as its model's context.

EAGLE-3's published heads say `max_position_embeddings: 2048`. Up to vLLM 0.26 that is how long the table of the head's
rotary embedding is, while it is given the positions of the model: the first longer request reads beyond it, and vLLM's
process ends with all requests (vLLM's issue 48894). Later versions raise the number themselves.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from doherty_engine._errors import EngineSetupError, first_line
from doherty_engine._hub import open_repository
from doherty_engine._paths import expand_user
from doherty_engine.text import ModelFolder


def stretch(folder: ModelFolder, positions: int) -> Path:
    """Makes a folder that links the head's files, with a config.json of its own; blocks, and fetches the weights.

    Its path is always the same for the same head, for it is part of the key of what vLLM has compiled before.

    Raises:
        EngineSetupError: the head cannot be fetched, or the folder not be written.
    """
    source = fetch_whole(folder)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    layers = config.get("transformer_layer_config", config)
    layers["max_position_embeddings"] = positions
    text = json.dumps(config, indent=2)
    copy = _cache() / f"{source.name}-{hashlib.sha256(f'{source} {text}'.encode()).hexdigest()[:16]}"
    try:
        copy.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.name != "config.json":
                with suppress(FileExistsError):
                    (copy / file.name).symlink_to(file)
        _write(copy / "config.json", text)
    except OSError as error:
        raise EngineSetupError(
            f"The head {folder.model} needs a copy of its config.json to draft up to position {positions}, and that "
            f"cannot be written ({first_line(error)}); set XDG_CACHE_HOME to a folder that can be."
        ) from error
    return copy


def _write(path: Path, text: str) -> None:
    """Writes a file that is whole at any moment, for another server may read it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).replace(path)


def fetch_whole(folder: ModelFolder) -> Path:
    """The head's folder with its weights in it: of one on the hub there are only the small files so far.

    Raises:
        EngineSetupError: it cannot be had.
    """
    if not folder.revision:
        return folder.path
    try:
        return open_repository(folder.model, folder.revision, extra="vllm").fetch()
    except Exception as error:  # the hub's client lets the errors of its HTTP library through, which changed its name
        raise EngineSetupError(
            f"The head {folder.model} cannot be had from the hub ({first_line(error)}); check the network."
        ) from error


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else expand_user("~/.cache")) / "doherty" / "heads"
