"""Prints an answer while it comes into being, and ends a second one early: `python examples/stream.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051.
"""

from doherty import Client


def main() -> None:
    """Streams both."""
    with Client() as client:
        with client.stream_generate("Why is the sky blue?", max_output_tokens=40) as stream:
            for text in stream.text_stream:
                print(text, end="", flush=True)
            first = stream.result().timings.time_to_first_token
        if first is not None:
            print(f"\n[the first token after {first * 1000:.0f} ms]")

        # Leaving the block ends the request at the server: nobody generates what nobody reads.
        with client.stream_generate("Write one sentence about the ocean.") as stream:
            for _ in stream:
                if len(stream.text.split()) >= 3:  # noqa: PLR2004 - three words
                    break
        print(f"[stopped after: {stream.text}]")


if __name__ == "__main__":
    main()
