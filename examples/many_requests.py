"""Puts many questions to a server, so many at a time, and keeps their order: `python examples/many_requests.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. As "batch", the questions wait behind those of
people. A server that is full says when to come back, and the client does: the retries need no code.
"""

import asyncio
import time

from doherty import AsyncClient, GenerateOptions, Generation, RpcError

QUESTIONS = [f"What is {number} times {number}?" for number in range(1, 51)]
AT_ONCE = 16
BATCH = GenerateOptions(priority="batch")


async def main() -> None:
    """Asks all questions, and sums up."""
    turns = asyncio.Semaphore(AT_ONCE)

    async with AsyncClient(timeout=120) as client:

        async def ask(question: str) -> Generation | RpcError:
            async with turns:
                try:
                    return await client.generate(question, max_output_tokens=20, options=BATCH)
                except RpcError as error:  # one that fails leaves the others alone
                    return error

        began = time.perf_counter()
        answers = await asyncio.gather(*map(ask, QUESTIONS))
        seconds = time.perf_counter() - began

    whole = [answer for answer in answers if isinstance(answer, Generation)]
    tokens = sum(answer.usage.output_tokens for answer in whole)
    print(f"{len(whole)} of {len(answers)} answered: {tokens} tokens in {seconds:.2f} s")
    for error in {str(answer) for answer in answers if isinstance(answer, RpcError)}:
        print(f"failed: {error}")


if __name__ == "__main__":
    asyncio.run(main())
