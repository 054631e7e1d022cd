"""The setting `--transport`."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from doherty_service.settings import Settings
from support.server import start_server
from support.wire import connect


def test_without_its_library_the_server_uses_grpcio(tmp_path: Path) -> None:
    (tmp_path / "ngh2.py").write_text("raise ImportError('no wheel')\n")
    with (
        start_server("--engine", "synthetic", "--transport", "http2", PYTHONPATH=str(tmp_path)) as server,
        connect(server.target) as caller,
    ):
        line = server.wait_for("transport_missing", transport="http2", error="no wheel")
        assert "doherty[http2]" in str(line["install"])
        caller.generate(prompt="a", stopping={"max_output_tokens": 3})


def test_channelz_needs_grpcio() -> None:
    with pytest.raises(ValidationError, match="channelz needs the transport grpcio"):
        Settings(transport="http2", channelz="open")
    assert Settings(transport="http2").transport == "http2"
    assert Settings(transport="http2", channelz="off").channelz == "off"
