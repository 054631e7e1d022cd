"""Streams answers to browsers: `python examples/fastapi_app.py`, then open http://127.0.0.1:8000.

The server is the environment's DOHERTY_TARGET, else localhost:50051. It needs fastapi and uvicorn. What the server
refuses is an HTTP error, 429 where it is full. When a browser goes away, FastAPI cancels the handler, and with that the
request ends at the server as well.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from doherty import AsyncClient, AsyncGenerationStream, DohertyError, InvalidRequestError, OverloadedError

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
    source.onerror = () => { source.close(); answer.append(" [no answer now, ask again]") }
  }
</script>
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """One client for the whole process, made on its event loop.

    It does not try again by itself: the browser is told at once, and for when.
    """
    async with AsyncClient(retry=None) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(DohertyError)
async def refuse(request: Request, error: DohertyError) -> JSONResponse:
    """The HTTP error for what is refused before an answer begins."""
    del request
    status = 429 if isinstance(error, OverloadedError) else 400 if isinstance(error, InvalidRequestError) else 503
    after = error.retry_after if isinstance(error, OverloadedError) else None
    headers = None if after is None else {"Retry-After": str(ceil(after))}
    return JSONResponse({"detail": str(error)}, status, headers)


async def admitted(prompt: str, request: Request) -> AsyncIterator[AsyncGenerationStream]:
    """The stream of an answer, once the server has admitted the request: before that, the response has not begun."""
    client: AsyncClient = request.app.state.client
    async with client.stream_generate(prompt, first_token_timeout=10) as stream:
        yield stream


@app.get("/")
async def page() -> HTMLResponse:
    """A form, and what shows the answer."""
    return HTMLResponse(PAGE)


@app.get("/answers", response_class=EventSourceResponse)
async def answers(
    stream: Annotated[AsyncGenerationStream, Depends(admitted)],
) -> AsyncIterator[ServerSentEvent]:
    """One answer as server-sent events: its texts, and at the end its finish reason or what failed."""
    try:
        async for text in stream.text_stream:
            yield ServerSentEvent(data=text)
        result = await stream.result()
    except DohertyError as error:
        yield ServerSentEvent(event="failure", data=str(error))
    else:
        yield ServerSentEvent(event="end", data=result.finish_reason)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
