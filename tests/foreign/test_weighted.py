"""gRPC's weighted_round_robin in Go, with the servers' load reports. Debian 12's grpc-go is too old for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.debian import debian_project, on_debian
from support.server import start_server

SOURCES = Path(__file__).parent / "weighted"
BUILD = """
protoc -I proto --go_out=src --go_opt=paths=source_relative --go-grpc_out=src --go-grpc_opt=paths=source_relative \
    proto/doherty/v1/*.proto
protoc -I orca --go_out=src --go-grpc_out=src xds/data/orca/v3/orca_load_report.proto xds/service/orca/v3/orca.proto
GO111MODULE=off GOPATH=$PWD:/usr/share/gocode go build -o client main.go
"""
CALLS = 60


@pytest.mark.languages
@pytest.mark.timeout(900)
def test_a_slow_server_gets_fewer_calls_from_go() -> None:
    with (
        debian_project("debian13") as project,
        start_server("--engine", "synthetic", "-o", "tokens_per_second=300") as fast,
        start_server("--engine", "synthetic", "-o", "tokens_per_second=100") as slow,
    ):
        shutil.copytree(SOURCES, project, dirs_exist_ok=True)
        (project / "src").mkdir()
        on_debian(BUILD, "debian13")
        # The program needs no libraries of that Debian.
        command = [str(project / "client"), fast.target, slow.target]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as client:
            share, counts = 1.0, [0, 0]
            while share >= 0.35:
                for number, server in enumerate((fast, slow)):
                    counts[number] += sum(line.get("rpc") == "Generate" for line in server.read())
                if sum(counts) >= CALLS:
                    share, counts = counts[1] / sum(counts), [0, 0]
                assert client.poll() is None
            assert client.stdin is not None
            client.stdin.close()
        assert client.returncode == 0
