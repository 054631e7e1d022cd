"""The files of a tokenizer as one archive, which gateways fetch to tokenize by themselves."""

import asyncio
import hashlib
import io
import zipfile
from pathlib import Path

from doherty_engine import EngineFailedError

_PATTERNS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt")
_LEFT_OUT = "*.index.json"
"""Lists of weights."""
CHUNK_BYTES = 64 << 10
"""What SMG's own servers send in a message."""


class TokenizerArchive:
    """The archive of one folder, made when it is first asked for."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._data = b""
        self._digest = ""
        self._making = asyncio.Lock()

    async def of(self, folder: Path) -> tuple[bytes, str]:
        """The archive (zip) of a folder's files and its SHA-256 in hexadecimal digits.

        Raises:
            EngineFailedError: the files cannot be read.
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
            if path.is_file() and not path.match(_LEFT_OUT):
                archive.write(path, path.name)
    return buffer.getvalue()
