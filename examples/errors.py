"""Makes calls that fail, and shows what each error says and what a program can do: `python examples/errors.py`.

The server is the environment's DOHERTY_TARGET, else localhost:50051.
"""

from doherty import (
    Client,
    DeadlineExceededError,
    GenerateOptions,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    RpcError,
    UnavailableError,
)


def main() -> None:
    """Has five calls fail."""
    with Client() as client:
        try:
            client.generate("Hello", temperature=-1)
        except InvalidRequestError as error:
            for violation in error.field_violations:
                print(f"mend the request: {violation.field}: {violation.description}")

        try:
            client.generate("Hello", options=GenerateOptions(model="no-such-model"))
        except NotFoundError as error:
            print(f"use what is there, {client.model().model}: {error.message}")

        try:
            client.generate("Count to a million.", timeout=0.001)
        except DeadlineExceededError as error:
            print(f"allow more time, or set time_limit= for what there is by then: {error.message}")

        # What no server could answer is not sent at all.
        try:
            client.generate([])
        except ValueError as error:
            print(f"mend the program: {error}")

    # Nobody listens at port 1. The client waits for a server as long as its timeout allows.
    with Client("localhost:1") as nobody:
        try:
            nobody.generate("Hello", timeout=2)
        except (UnavailableError, OverloadedError) as error:
            print(f"come back in {error.retry_after or 'some'} seconds: {error.message}")
        except RpcError as error:
            # Whatever else can come from a server: the request id finds the call in its log.
            print(f"tell the operator of {error.request_id}: {error}")


if __name__ == "__main__":
    main()
