"""Asks one question, then one in a conversation, and says how long each answer took: `python examples/generate.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051.
"""

from doherty import Client, Generation, Message


def show(answer: Generation) -> None:
    """Prints an answer, and what the server and the way to it took of its time."""
    total, network = answer.timings.total, answer.network
    print(answer)
    if total is not None and network is not None:
        print(f"[{answer.usage.output_tokens} tokens; server {total * 1000:.0f} ms, network {network * 1000:.1f} ms]")


def main() -> None:
    """Asks both."""
    with Client() as client:
        show(client.generate("What atoms are in water?", max_output_tokens=40))
        conversation = [
            Message("user", "Name an ocean."),
            Message("assistant", "The Pacific."),
            Message("user", "And another one?"),
        ]
        show(client.generate(conversation, system="Answer in one sentence.", temperature=0, max_output_tokens=40))


if __name__ == "__main__":
    main()
