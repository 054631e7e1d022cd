"""Asks from several threads on one client, as a program without asyncio does: `python examples/thread_pool.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051.
"""

from concurrent.futures import ThreadPoolExecutor

from doherty import Client, RpcError

WORDS = ["ocean", "river", "mountain", "forest", "desert", "island", "valley", "glacier"]
THREADS = 4


def main() -> None:
    """Translates all words."""
    # One client for all threads: they share its connection, and its bound on retries.
    with Client() as client, ThreadPoolExecutor(THREADS) as pool:

        def translate(word: str) -> str:
            try:
                return client.generate(f"What is {word!r} in French?", temperature=0, max_output_tokens=20).text.strip()
            except RpcError as error:  # one that fails leaves the others alone
                return f"failed: {error}"

        for word, translation in zip(WORDS, pool.map(translate, WORDS), strict=True):
            print(f"{word}: {translation!r}")


if __name__ == "__main__":
    main()
