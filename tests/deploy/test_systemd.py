"""deploy/systemd, checked by systemd itself, and a server with its settings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from doherty_service.settings import Settings
from support.certificates import Authority
from support.image import ROOT
from support.programs import program
from support.security import add_key, connect_with
from support.server import start_server

FOLDER = ROOT / "deploy" / "systemd"
UNIT = (FOLDER / "doherty.service").read_text()


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Returns the unit with the path that the server has on this machine."""
    server = Path(sys.executable).with_name("doherty")
    assert "/opt/doherty/bin/doherty" in UNIT
    written = tmp_path / "doherty.service"
    written.write_text(UNIT.replace("/opt/doherty/bin/doherty", str(server)))
    return written


def systemd_analyze(*arguments: str | Path) -> str:
    """Returns the output of systemd-analyze, which must succeed."""
    command = [program("systemd-analyze"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_accepts_the_unit(unit: Path) -> None:
    assert systemd_analyze("verify", "--man=no", unit) == ""


def test_the_unit_exposes_little(unit: Path) -> None:
    """The scale ends at 10, for a process that may do everything."""
    output = systemd_analyze("security", "--offline=true", "--threshold=30", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for doherty.service: ([\d.]+)", output)
    assert exposure is not None, output
    assert float(exposure[1]) < 3


def test_the_unit_leaves_time_for_a_drain() -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    settings = Settings(**tomllib.loads((FOLDER / "doherty.toml").read_text()))
    assert seconds is not None
    assert int(seconds[1]) > settings.drain_delay + settings.drain_grace + 30


def test_the_server_starts_with_the_file_of_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.renew("server")
    key = add_key(tmp_path / "keys.json", "alice")
    text = (FOLDER / "doherty.toml").read_text()
    for folder in ("/etc/doherty", "/var/lib/doherty"):
        assert folder in text
        text = text.replace(folder, str(tmp_path))
    (tmp_path / "doherty.toml").write_text(text.replace(":9464", ":0"))
    flags = ("--config", str(tmp_path / "doherty.toml"), "--engine", "synthetic")
    with (
        start_server(*flags) as server,
        connect_with(server.target.replace("127.0.0.1", "localhost"), key, authority.roots) as caller,
    ):
        assert caller.generate(prompt="Hi").text
