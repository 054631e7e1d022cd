"""A lack of memory or descriptors is UNAVAILABLE, with OUT_OF_RESOURCES."""

import errno
import subprocess
import sys

import pytest

from doherty_engine import OutOfResourcesError
from doherty_service._errors import UnavailableError, as_service_error
from support.wire import SECONDS

PARSES = """
import resource
from doherty.v1.generation_service_pb2 import CountTokensRequest
from doherty_service._errors import ServiceError
from doherty_service.rpc import parse_message

def reason(data):
    try:
        parse_message(CountTokensRequest.FromString, data)
    except ServiceError as error:
        return error.reason

large = CountTokensRequest(prompt="x" * (200 << 20)).SerializeToString()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20),) * 2)
print(reason(large), reason(b"\\xff"))
"""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EMFILE, "Too many open files"), OutOfResourcesError("no memory")],
    ids=lambda error: type(error).__name__,
)
def test_a_shortage_is_unavailable(error: Exception) -> None:
    service_error = as_service_error(error)
    assert isinstance(service_error, UnavailableError)
    assert service_error.reason == "OUT_OF_RESOURCES"
    assert service_error.retry_after


def test_other_system_errors_are_internal() -> None:
    assert as_service_error(OSError(errno.EACCES, "Permission denied")).reason == "INTERNAL"


def test_a_message_that_cannot_be_parsed_for_lack_of_memory_is_not_malformed() -> None:
    ended = subprocess.run((sys.executable, "-c", PARSES), check=True, capture_output=True, text=True, timeout=SECONDS)
    assert ended.stdout.split() == ["OUT_OF_RESOURCES", "MALFORMED_MESSAGE"]
