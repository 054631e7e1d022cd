"""Puts 500 questions to a server, so many at a time, and shows how far it is: `python examples/many_requests.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. As "batch", the questions wait behind those of
people. A server that is full says when to come back, and the client does: the retries need no code. It needs rich,
which the SDK does not.
"""

import asyncio
import time

from rich.console import Console
from rich.progress import Progress

from doherty import AsyncClient, GenerateOptions, Generation, RpcError

QUESTIONS = [f"What is {number} times {number}?" for number in range(1, 501)]
AT_ONCE = 32
BATCH = GenerateOptions(priority="batch")


async def ask_all(client: AsyncClient, progress: Progress) -> list[Generation | RpcError]:
    """The answers in the order of the questions; one that failed leaves the others alone."""
    turns = asyncio.Semaphore(AT_ONCE)
    task = progress.add_task("questions", total=len(QUESTIONS))

    async def ask(question: str) -> Generation | RpcError:
        async with turns:
            try:
                return await client.generate(question, max_output_tokens=20, options=BATCH)
            except RpcError as error:
                return error
            finally:
                progress.advance(task)

    return await asyncio.gather(*map(ask, QUESTIONS))


async def main() -> None:
    """Asks all questions, and sums up."""
    console = Console(stderr=True)
    began = time.perf_counter()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        async with AsyncClient(timeout=120) as client:
            answers = await ask_all(client, progress)
    seconds = time.perf_counter() - began
    whole = [answer for answer in answers if isinstance(answer, Generation)]
    tokens = sum(answer.usage.output_tokens for answer in whole)
    print(f"{len(whole)} of {len(answers)} answered: {tokens} tokens in {seconds:.2f} s")
    for error in {str(answer) for answer in answers if isinstance(answer, RpcError)}:
        print(f"failed: {error}")


if __name__ == "__main__":
    asyncio.run(main())
