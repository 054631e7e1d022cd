"""Puts 500 questions to a server, so many at a time, and shows how far it is: `python examples/many_requests.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. As "batch", the questions wait behind those of
people. A server that is full says when to come back, and the client does: the retries need no code. It needs rich,
which the SDK does not.
"""

import asyncio
import time

from rich.console import Console
from rich.progress import Progress

from doherty import AsyncClient, GenerateOptions, Generation

QUESTIONS = [f"What is {number} times {number}?" for number in range(1, 501)]
AT_ONCE = 32
BATCH = GenerateOptions(priority="batch")


async def main() -> None:
    """Asks all questions, and sums up."""
    answers: list[Generation] = []
    failures: set[str] = set()
    console = Console(stderr=True)
    began = time.perf_counter()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("questions", total=len(QUESTIONS))
        async with AsyncClient(timeout=120) as client:
            # As they come; ordered=True, the default, is in the order of the questions.
            results = client.map(QUESTIONS, concurrency=AT_ONCE, ordered=False, max_output_tokens=20, options=BATCH)
            async for item in results:
                progress.advance(task)
                if item.error is None:
                    answers.append(item.result())
                else:  # one that fails leaves the others alone
                    failures.add(str(item.error))
    seconds = time.perf_counter() - began
    tokens = sum(answer.usage.output_tokens for answer in answers)
    print(f"{len(answers)} of {len(QUESTIONS)} answered: {tokens} tokens in {seconds:.2f} s")
    for failure in failures:
        print(f"failed: {failure}")


if __name__ == "__main__":
    asyncio.run(main())
