"""A server to test programs against: in this process, on a real socket, and with answers that a test scripts.

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
