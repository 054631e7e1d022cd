"""Reads the TOML file of settings."""

import codecs
import tomllib
from pathlib import Path
from typing import Any

from doherty_service.process import read_file

_MAX_BYTES = 1 << 20


def read_config(path: Path) -> dict[str, Any]:
    """Reads the TOML file of settings.

    Raises:
        OSError: The file does not exist or cannot be read.
        UnfitFileError: It is not a regular file, or it is too large.
        ValueError: It is not TOML in UTF-8.
    """
    data = read_file(path, _MAX_BYTES)
    if data.startswith(codecs.BOM_UTF8):
        raise ValueError(
            f"{path} begins with a byte-order mark, which TOML does not allow; save the file as UTF-8 without one"
        )
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error
