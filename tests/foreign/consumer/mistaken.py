"""Mistakes that type checkers find. Strict checkers also report a comment that suppresses no error."""

from doherty import AsyncClient, Client, GenerateOptions, Message, RetryPolicy


def whole(client: Client) -> None:
    """Mistakes in ordinary calls."""
    client.generate("Hi", max_tokens=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    client.generate("Hi", temperature="hot")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    client.generate(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    assert client.generate("Hi", schema=int).parsed.name  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    client.stream_generate("Hi", streaming=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    assert client.generate("Hi").parsed.name  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    client.count_tokens("Hi", temperature=0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def asynchronous(client: AsyncClient) -> None:
    """Mistakes with coroutines."""
    await client.generate("Hi", max_tokens=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    assert client.generate("Hi").text  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def parts() -> None:
    """Mistakes in the arguments of calls."""
    Client(api_kye="dh_me_secret")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Message("robot", "Hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    GenerateOptions(priority="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RetryPolicy(attempts=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
