"""A conversation that forgets its oldest turns when it grows too long for the model: `python examples/chat.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051. A line is a question; Ctrl-D ends it all.
"""

import sys
from collections.abc import Iterator

from doherty import Client, DohertyError, Message

SYSTEM = "You are brief."
ANSWER_TOKENS = 200


def questions() -> Iterator[str]:
    """The lines that are typed."""
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if line.strip():
            yield line


def trim(client: Client, conversation: list[Message], room: int) -> None:
    """Takes the oldest questions and their answers away, until the rest fits; the last question stays."""
    while len(conversation) > 1 and client.count_tokens(conversation, system=SYSTEM) > room:
        del conversation[:2]


def answer(client: Client, conversation: list[Message]) -> str:
    """Prints the next answer while it comes into being, and returns it."""
    with client.stream_generate(conversation, system=SYSTEM, max_output_tokens=ANSWER_TOKENS) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
        print()
        return stream.text


def main() -> None:
    """Holds the conversation."""
    conversation: list[Message] = []
    with Client() as client:
        room = client.model().limits.context_tokens - ANSWER_TOKENS
        for question in questions():
            conversation.append(Message("user", question))
            try:
                trim(client, conversation, room)
                conversation.append(Message("assistant", answer(client, conversation)))
            except DohertyError as error:
                print(f"\n{error}", file=sys.stderr)
                del conversation[-1]  # the question may be asked again


if __name__ == "__main__":
    main()
