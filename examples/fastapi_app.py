"""Streams answers to browsers: `python examples/fastapi_app.py`, then open http://127.0.0.1:8000.

The server is the environment's DOHERTY_TARGET, else localhost:50051. It needs fastapi and uvicorn. When a browser goes
away, FastAPI cancels the handler, that leaves the stream's block, and so the request ends at the server as well.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from doherty import AsyncClient, DohertyError

PAGE = """
<!doctype html><title>Doherty</title>
<form><input name="prompt" size="60" value="Why is the sky blue?" autofocus> <button>Ask</button></form>
<p style="white-space: pre-wrap"></p>
<script>
  let source
  document.forms[0].onsubmit = (event) => {
    event.preventDefault()
    source?.close() // ends the answer before at the server too
    const answer = document.querySelector("p")
    answer.textContent = ""
    source = new EventSource("/answers?" + new URLSearchParams(new FormData(event.target)))
    source.onmessage = (message) => answer.append(JSON.parse(message.data))
    source.addEventListener("failure", (message) => answer.append(" [" + JSON.parse(message.data) + "]"))
    source.addEventListener("end", () => source.close())
    source.onerror = () => source.close()
  }
</script>
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """One client for the whole process, made on its event loop."""
    async with AsyncClient() as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> HTMLResponse:
    """A form, and what shows the answer."""
    return HTMLResponse(PAGE)


@app.get("/answers", response_class=EventSourceResponse)
async def answers(prompt: str, request: Request) -> AsyncIterator[ServerSentEvent]:
    """One answer as server-sent events: its texts, and at the end its finish reason or what failed."""
    client: AsyncClient = request.app.state.client
    try:
        async with client.stream_generate(prompt, first_token_timeout=10) as stream:
            async for text in stream.text_stream:
                yield ServerSentEvent(data=text)
            result = await stream.result()
    except DohertyError as error:
        yield ServerSentEvent(event="failure", data=str(error))
    else:
        yield ServerSentEvent(event="end", data=result.finish_reason)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
