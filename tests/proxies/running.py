"""Runs the proxies with the files of deploy/, with the changes that the tests need."""

import os
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from support.certificates import Authority
from support.ports import free_port
from support.programs import program

ROOT = Path(__file__).parents[2]
SECONDS = 30
"""If a proxy takes longer than this to start, in seconds, it counts as hanging."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Program(ABC):
    """A proxy that may be installed on this machine, and its configuration file in deploy/."""

    path: Path
    """The path of its file in deploy/."""
    idle: Mapping[str, str]
    """The file's limits for connections without calls, and the shorter ones for tests."""

    def __init__(self, name: str) -> None:
        """`name` is the name of its command."""
        self.name = name

    def __str__(self) -> str:
        return self.name

    @property
    def command(self) -> str:
        """The path of the command; skips the test if it is not installed."""
        return program(self.name)

    def write(  # noqa: PLR0913 - what a test may want to change
        self,
        folder: Path,
        port: int,
        servers: Sequence[str],
        authority: Authority,
        *,
        tls: bool,
        more: Mapping[str, str] = _NOTHING,
    ) -> Path:
        """Writes the file with the addresses and certificates of a test, and the changes in `more`.

        With `tls`, connections to the servers are encrypted, too.
        """
        text = self.path.read_text()
        if tls:
            lines = [line.replace("#tls ", "", 1) for line in text.splitlines() if not line.endswith("#plaintext")]
            text = "\n".join(lines) + "\n"
        changes = {**self.places(port, servers, authority, folder), **self.idle, **more}
        if tls:
            changes |= {"doherty.internal": "localhost", **self.trusted(authority)}
        missing = [old for old in changes if old not in text]
        assert not missing, f"{self.path} has no {missing}"
        # All in one pass, because a new value may contain what another change replaces: the port 44312 contains ":443".
        text = re.sub("|".join(map(re.escape, changes)), lambda found: changes[found[0]], text)
        written = folder / f"{self.name}{'-tls' if tls else ''}{self.path.suffix}"
        written.write_text(text)
        return written

    @abstractmethod
    def places(self, port: int, servers: Sequence[str], authority: Authority, folder: Path) -> dict[str, str]:
        """Returns the parts of the file that depend on the machine, and their values here."""

    @abstractmethod
    def trusted(self, authority: Authority) -> dict[str, str]:
        """Returns the changes that make the proxy trust the authority of the servers."""

    @abstractmethod
    def check(self, written: Path) -> list[str]:
        """Returns the command with which the proxy checks its file."""

    @abstractmethod
    def run(self, written: Path) -> list[str]:
        """Returns the command that runs the proxy in the foreground."""


class Envoy(Program):
    """Envoy, which checks the health of the servers."""

    path = ROOT / "deploy" / "envoy" / "envoy.yaml"
    idle: Mapping[str, str] = {"idle_timeout: 3600s": "idle_timeout: 1s"}

    def places(self, port: int, servers: Sequence[str], authority: Authority, folder: Path) -> dict[str, str]:
        del folder
        addresses = {
            f"10.0.0.{number}, port_value: 50051": server.replace(":", ", port_value: ")
            for number, server in enumerate(servers, 1)
        }
        listen = {"address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}"}
        files = {
            "/etc/envoy/server.pem": str(authority.chain),
            "/etc/envoy/server.key": str(authority.key),
            "/etc/envoy/doherty.binpb": str(self.path.parent / "doherty.binpb"),
        }
        return addresses | listen | files

    def trusted(self, authority: Authority) -> dict[str, str]:
        return {"/etc/envoy/ca.pem": str(authority.roots_file)}

    def check(self, written: Path) -> list[str]:
        return [*self.run(written), "--mode", "validate"]

    def run(self, written: Path) -> list[str]:
        quiet = ("--log-level", "error", "--disable-hot-restart", "--concurrency", "2")
        return [self.command, "--config-path", str(written), *quiet]


class HAProxy(Program):
    """HAProxy, which checks the health of the servers by sending the bytes in its file."""

    path = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
    idle: Mapping[str, str] = {
        "timeout http-keep-alive 1h": "timeout http-keep-alive 1s",
        "timeout http-request 30s": "timeout http-request 1s",
    }

    def places(self, port: int, servers: Sequence[str], authority: Authority, folder: Path) -> dict[str, str]:
        site = folder / "site.pem"
        site.write_bytes(authority.chain.read_bytes() + authority.key.read_bytes())
        addresses = {f"10.0.0.{number}:50051": server for number, server in enumerate(servers, 1)}
        return addresses | {":443": f"127.0.0.1:{port}", "/etc/haproxy/site.pem": str(site)}

    def trusted(self, authority: Authority) -> dict[str, str]:
        return {"/etc/haproxy/ca.pem": str(authority.roots_file)}

    def check(self, written: Path) -> list[str]:
        return [self.command, "-c", "-f", str(written)]

    def run(self, written: Path) -> list[str]:
        return [self.command, "-db", "-f", str(written)]


class Nginx(Program):
    """nginx, which must be told which servers are available."""

    path = ROOT / "deploy" / "nginx" / "nginx.conf"
    idle: Mapping[str, str] = {
        "keepalive_timeout 1h": "keepalive_timeout 1s",
        "keepalive_timeout 60s": "keepalive_timeout 1s",
    }

    def places(self, port: int, servers: Sequence[str], authority: Authority, folder: Path) -> dict[str, str]:
        addresses = {f"10.0.0.{number}:50051": server for number, server in enumerate(servers, 1)}
        # The path for large bodies and other temporary files is compiled in, and only root may write there.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        kept = " ".join(f"{kind}_temp_path {folder / self.name};" for kind in kinds)
        files = {
            "/etc/nginx/server.pem": str(authority.chain),
            "/etc/nginx/server.key": str(authority.key),
            "access_log off;": f"access_log off; {kept}",
        }
        return addresses | {"listen 443": f"listen 127.0.0.1:{port}"} | files

    def trusted(self, authority: Authority) -> dict[str, str]:
        return {"/etc/nginx/ca.pem": str(authority.roots_file)}

    def check(self, written: Path) -> list[str]:
        return [*self._base(written, ""), "-t"]

    def run(self, written: Path) -> list[str]:
        return self._base(written, "daemon off; ")

    def _base(self, written: Path, directives: str) -> list[str]:
        # Its workers would otherwise drop the privileges that they need to read the folder of the test.
        user = "user root; " if os.geteuid() == 0 else ""
        directives += f"{user}pid {written.with_suffix('.pid')};"
        return [self.command, "-c", str(written), "-p", str(written.parent), "-e", "stderr", "-g", directives]


PROGRAMS: tuple[Program, ...] = (Envoy("envoy"), HAProxy("haproxy"), Nginx("nginx"), Nginx("nginx-new"))
"""Debian 12's nginx, 1.22, and a new one."""


class Running:
    """A running proxy and its address."""

    def __init__(self, program: Program, target: str, written: Path, process: subprocess.Popen[bytes]) -> None:
        """`target` is its address, and `written` its file."""
        self.program = program
        self.target = target
        self._written = written
        self._process = process

    def take_out(self, server: str) -> None:
        """Takes a server out, as the comments in the file say for servers that will be stopped."""
        self._change(f"server {server} ", f"server {server} down ")

    def take_in(self, server: str) -> None:
        """Adds the server again."""
        self._change(f"server {server} down ", f"server {server} ")

    def _change(self, old: str, new: str) -> None:
        if isinstance(self.program, Nginx):
            text = self._written.read_text()
            assert old in text
            self._written.write_text(text.replace(old, new))
            self._process.send_signal(signal.SIGHUP)


@contextmanager
def running(  # noqa: PLR0913 - as `write`
    program: Program,
    folder: Path,
    servers: Sequence[str],
    authority: Authority,
    *,
    tls: bool = False,
    more: Mapping[str, str] = _NOTHING,
) -> Iterator[Running]:
    """Runs a proxy in front of servers until the end of the block."""
    port = free_port()
    written = program.write(folder, port, servers, authority, tls=tls, more=more)
    process = subprocess.Popen(program.run(written))
    try:
        yield Running(program, f"localhost:{port}", written, process)
    finally:
        process.terminate()
        process.wait(SECONDS)
