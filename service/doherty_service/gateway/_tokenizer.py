"""Packs the files of a tokenizer into an archive. Gateways fetch it, because they tokenize themselves."""

import asyncio
import hashlib
import io
import zipfile
from pathlib import Path

from doherty_engine import EngineFailedError

_PATTERNS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt")
_EXCLUDED = "*.index.json"
"""Indexes of weight files."""
CHUNK_BYTES = 64 << 10
"""The chunk size of SMG's own servers."""


class TokenizerArchive:
    """The archive of a folder, made when it is first requested."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._data = b""
        self._digest = ""
        self._making = asyncio.Lock()

    async def get(self, folder: Path) -> tuple[bytes, str]:
        """Returns the zip archive of a folder's files and its SHA-256 in hexadecimal.

        Raises:
            EngineFailedError: The files cannot be read.
        """
        async with self._making:
            if folder != self._folder:
                try:
                    self._data = await asyncio.to_thread(_pack, folder)
                except OSError as error:
                    raise EngineFailedError(f"the tokenizer in {folder} cannot be read") from error
                self._digest = hashlib.sha256(self._data).hexdigest()
                self._folder = folder
            return self._data, self._digest


def _pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)}):
            if path.is_file() and not path.match(_EXCLUDED):
                archive.write(path, path.name)
    return buffer.getvalue()
