"""Messages that are encoded by hand are equal to those of protobuf."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.answer_pb2 import Delta
from doherty_engine import EngineRequest, ModelInfo, RawText, StepOutput
from doherty_service.security import ANYBODY
from doherty_service.telemetry import RequestRecord
from doherty_service.translation import multiplex_part, stream_message

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
IDS = st.lists(st.integers(0, 2**32 - 1), max_size=200)
COUNTS = st.integers(0, 2**32 - 1)

SLOWLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long an example takes depends on what else the machine does."""

RECORD = RequestRecord("/doherty.v1.GenerationService/StreamGenerate", "key", "label", ANYBODY)
REQUEST = EngineRequest("key", RawText("a"))
MODEL = ModelInfo("model", "", "synthetic", "1", 8192, 50_000, 4, frozenset())


@SLOWLY
@given(TEXTS, st.none() | IDS.map(tuple), COUNTS)
def test_a_delta_equals_that_of_protobuf(text: str, ids: tuple[int, ...] | None, count: int) -> None:
    output = StepOutput("key", text=text, token_count=count, token_ids=ids)
    if not text and not count:
        assert stream_message(output, RECORD, MODEL, REQUEST, is_first=False) == b""
        return
    expected = wire.StreamGenerateResponse(delta=Delta(text=text, token_ids=ids, token_count=count))
    assert stream_message(output, RECORD, MODEL, REQUEST, is_first=False) == expected.SerializeToString()


@SLOWLY
@given(st.integers(1, 2**64 - 1), TEXTS, st.integers(0, 5000))
def test_a_part_equals_that_of_protobuf(identifier: int, text: str, repeats: int) -> None:
    response = wire.StreamGenerateResponse(delta=Delta(text=text * repeats, token_count=1))
    expected = wire.MultiplexGenerateResponse(parts=[wire.MultiplexPart(id=identifier, response=response)])
    assert multiplex_part(identifier, response.SerializeToString()) == expected.SerializeToString()
