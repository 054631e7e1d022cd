"""Summarizes a text, whatever its length: `python examples/summarize.py < article.txt`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. What is too long for the model is summarized in
parts, and then the summaries of the parts are.
"""

import sys
from collections.abc import Iterator

from doherty import Client

INSTRUCTIONS = "Summarize the text in two sentences."
SUMMARY_TOKENS = 100


def summarize(client: Client, text: str) -> Iterator[str]:
    """The summary, piece by piece."""
    room = client.model().limits.context_tokens - SUMMARY_TOKENS
    while len(parts := split(client, text, room)) > 1:
        summaries = (client.generate(part, system=INSTRUCTIONS, max_output_tokens=SUMMARY_TOKENS) for part in parts)
        text = "\n\n".join(summary.text for summary in summaries)
    with client.stream_generate(text, system=INSTRUCTIONS, max_output_tokens=SUMMARY_TOKENS) as stream:
        yield from stream.text_stream


def split(client: Client, text: str, room: int) -> list[str]:
    """The text in parts, each of which leaves room for its summary."""
    if client.count_tokens(text, system=INSTRUCTIONS) <= room:
        return [text]
    half = len(text) // 2
    middle = text.rfind(" ", 0, half) + 1 or half
    return split(client, text[:middle], room) + split(client, text[middle:], room)


def main() -> None:
    """Summarizes the standard input."""
    text = sys.stdin.read().strip()
    if not text:
        sys.exit("There is no text on the standard input.")
    with Client() as client:
        for piece in summarize(client, text):
            print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
