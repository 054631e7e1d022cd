"""Checks what docs/programs.md says about web servers, with a real one."""

import asyncio
import socket
from typing import Any

import uvicorn

from doherty import AsyncClient
from support.pages import ROOT, blocks
from support.server import start_server
from support.twins import Twin


def _app(target: str) -> Any:
    """Returns the page's FastAPI application, whose client does not retry."""
    (text,) = [block.text for block in blocks(ROOT / "docs" / "programs.md") if block.section == "FastAPI"]
    names: dict[str, Any] = {"__name__": "app"}
    exec(text.replace('"localhost:50051"', f'"{target}", retry=None'), names)  # noqa: S102 - the code of our own page
    return names["app"]


class _Request:
    """A browser's request for an answer."""

    async def send(self, port: int, prompt: str) -> tuple[int, dict[str, str]]:
        """Waits for the head of the response, and returns its status and headers."""
        reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(f"GET /answers?prompt={prompt} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(status.split()[1]), {name.lower(): value for name, value in (line.split(": ") for line in lines)}

    async def leave(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_a_handler_answers_before_the_first_token_and_stops_with_the_browser() -> None:
    flags = ("-o", "slots=1", "-o", "prefill_seconds=300", "--max-queued-requests", "0")
    with start_server("--engine", "synthetic", *flags) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        web = uvicorn.Server(uvicorn.Config(_app(server.target), log_level="warning"))
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        admitted, refused, wrong = _Request(), _Request(), _Request()
        assert (await admitted.send(port, "Hi"))[0] == 200
        status, headers = await refused.send(port, "Hi")
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        await admitted.leave()
        async with AsyncClient(server.target) as client:
            await Twin(client).wait_for_aborts(1)
        assert (await wrong.send(port, "Hi+" * 10_000))[0] == 400
        for request in (refused, wrong):
            await request.leave()
        web.should_exit = True
        await serving
