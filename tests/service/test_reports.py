"""Reports of ended requests."""

import asyncio
from typing import Any

from doherty_service.rpc import Reporter
from doherty_service.security import ANYBODY
from doherty_service.telemetry import LatencyRecorder, RequestRecord


class FailingRecorder(LatencyRecorder):
    """A recorder that cannot add the requests of one label."""

    def finish(self, record: RequestRecord) -> None:
        """Adds a request, or raises."""
        if record.request_id == "bad":
            raise ValueError(record.key)
        super().finish(record)


async def test_a_report_that_fails_does_not_stop_the_others() -> None:
    failures: list[str] = []

    def note_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failures.append(str(context["exception"]))

    asyncio.get_running_loop().set_exception_handler(note_failure)
    recorder = FailingRecorder(60.0)
    reporter = Reporter(recorder, lambda _: None)

    def end_requests(moment: str) -> None:
        for label in ("good", "bad", "bad", "good"):
            record = RequestRecord("/doherty.v1.GenerationService/Generate", moment, label, ANYBODY)
            reporter.end(record, "OK")

    end_requests("at the end of the server")
    reporter.flush()
    assert (recorder.answered, failures) == (2, ["at the end of the server"] * 2)
    end_requests("in the next turn")
    assert recorder.answered == 2
    await asyncio.sleep(0)
    assert (recorder.answered, failures[2:]) == (4, ["in the next turn"] * 2)
