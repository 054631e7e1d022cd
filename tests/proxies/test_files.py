"""The proxies accept their files in deploy/."""

import subprocess
from pathlib import Path

import pytest

from proxies.running import PROGRAMS, Program, running
from support.certificates import Authority
from support.ports import free_port
from support.server import start_server
from support.wire import connect

SERVERS = ("127.0.0.1:44301", "127.0.0.1:44302")
"""Ports that contain 443, the port in the files."""


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
def test_the_proxy_accepts_its_file(program: Program, tls: bool, authority: Authority, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    written = program.write(tmp_path, free_port(), SERVERS, authority, tls=tls)
    checked = subprocess.run(program.check(written), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_connections_to_the_servers_can_be_encrypted(authority: Authority, tmp_path: Path) -> None:
    with start_server("--engine", "synthetic", *authority.flags) as server:
        for program in PROGRAMS:
            with (
                running(program, tmp_path, [server.target] * 2, authority, tls=True) as proxy,
                connect(proxy.target, authority.roots) as caller,
            ):
                assert caller.stream(prompt="Hi", stopping={"max_output_tokens": 3})[-1].HasField("summary")
