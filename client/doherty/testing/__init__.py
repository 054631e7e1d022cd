"""A fake server for tests of programs. It runs in the test's process, on a real socket, and sends scripted answers.

    from doherty import Client
    from doherty.testing import FakeServer

    with FakeServer("Blue.") as server, Client(server.target) as client:
        assert str(client.generate("Why is the sky blue?")) == "Blue."
    assert server.requests[0].prompt == "Why is the sky blue?"

It needs nothing beyond the SDK. `doherty.testing.fixtures` has the fixture `doherty_server` for pytest.
"""

from doherty.testing._request import Request
from doherty.testing._script import Answer, Reply, Script
from doherty.testing._server import FakeServer

__all__ = ["Answer", "FakeServer", "Reply", "Request", "Script"]
