"""Numbers and times have a limited length, even if the schema sets no limit."""

import json
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from doherty_engine import InvalidInputError, JsonSchema
from doherty_engine.constraints import ConstraintCompiler, write_for_xgrammar

COMPILER = ConstraintCompiler(extra="cpu")


def fits(schema: object, text: str) -> bool:
    form = COMPILER.compile(JsonSchema(json.dumps(schema)))
    try:
        form.advance(text)
        form.check_end()
    except InvalidInputError:
        return False
    return True


WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
LARGEST = str(2**63 - 1024)
BILLIONTHS = "1.123456789"


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        (WHOLE, ["0", LARGEST, f"-{LARGEST}"], ["1" * 20, "-" + "1" * 20]),
        ({**WHOLE, "minimum": 0}, [LARGEST], ["1" * 20, "-1"]),
        ({**WHOLE, "maximum": 9}, [f"-{LARGEST}", "9"], ["-" + "1" * 20, "10"]),
        ({**WHOLE, "multipleOf": 7}, ["7", "7" * 18], ["7" * 20]),
        ({"type": ["integer", "null"]}, ["null", "3"], ["1" * 20]),
        ({"anyOf": [WHOLE, {"type": "null"}]}, ["null", LARGEST], ["1" * 20]),
        ({"type": "array", "items": WHOLE}, [f"[1,{LARGEST}]"], [f"[{'1' * 20}]"]),
        ({"$ref": "#/$defs/n0", "$defs": {"n0": WHOLE}}, [LARGEST], ["1" * 20]),
        ({**NUMBER, "minimum": 0, "maximum": 100}, [BILLIONTHS, "100"], [f"{BILLIONTHS}1", "1." + "3" * 40]),
        ({**NUMBER, "exclusiveMinimum": 0}, ["0.000000001", "1" + "0" * 18], ["1." + "3" * 40, "1" * 20, "0"]),
        ({**NUMBER, "maximum": -0.5}, ["-0.5", "-1" + "0" * 18], ["-1." + "3" * 40, "-" + "1" * 20]),
        ({"type": "string", "format": "time"}, ['"10:00:00.123456+01:00"'], ['"10:00:00.1234567+01:00"']),
        (
            {"type": "string", "format": "date-time"},
            ['"2021-03-03T10:00:00.123456Z"'],
            [f'"2021-03-03T10:00:00.{"0" * 20}Z"'],
        ),
        ({"type": "string", "format": "duration"}, ['"P1DT2H"'], [f'"P{"1" * 32}D"']),
        # Limits of the author stay unchanged.
        ({**NUMBER, "minimum": 0, "maximum": 1e-7}, ["0.00000001234567"], ["1"]),
        ({**NUMBER, "minimum": 0, "multipleOf": 0.25}, ["0.75"], ["0.7"]),
        ({"type": "string", "format": "time", "minLength": 30}, [f'"10:00:00.{"0" * 20}Z"'], ['"10:00:00Z"']),
        ({"enum": [10**19, 1]}, ["1" + "0" * 19], ["2"]),
        # Only a number without bounds may have an exponent.
        (NUMBER, ["6.02214076e23", "6.62607015e-34", "1." + "3" * 40], ["x"]),
    ],
)
def test_the_number_of_digits_is_limited(schema: object, yes: list[str], no: list[str]) -> None:
    assert [text for text in yes if not fits(schema, text)] == []
    assert [text for text in no if fits(schema, text)] == []


class Everything(BaseModel):
    whole: int
    maybe: int | None
    counts: dict[str, int]
    share: float = Field(ge=0, le=1)
    price: float = Field(gt=0)
    day: date
    at: time
    moment: datetime
    takes: timedelta
    pair: tuple[int, Annotated[float, Field(lt=0)]]


def test_values_that_python_writes_are_accepted() -> None:
    value = Everything(
        whole=-(10**18),
        maybe=None,
        counts={"a": 7_777_777_777_777_777_777},
        share=0.333333333,
        price=1e17,
        day=date(9999, 12, 31),
        at=time(23, 59, 59, 999_999),
        moment=datetime.fromisoformat("9999-12-31T23:59:59.999999+23:59"),
        takes=timedelta(days=3),
        pair=(2**62, -0.5),
    )
    written: dict[str, Any] = json.loads(value.model_dump_json()) | {"at": "23:59:59.999999Z"}
    text = json.dumps(written, separators=(",", ":")).replace("1e+17", "1" + "0" * 17)
    assert fits(TypeAdapter(Everything).json_schema(), text)


def test_a_schema_with_many_different_numbers_compiles() -> None:
    names = {f"p{place}": {**WHOLE, "minimum": place} for place in range(200)}
    schema = {"type": "object", "properties": names}
    assert fits(schema, '{"p0":0,"p199":199}')
    assert not fits(schema, f'{{"p0":{"1" * 20}}}')


def test_xgrammar_gets_no_bounds_that_it_would_apply_wrongly() -> None:
    _, _, text = write_for_xgrammar(JsonSchema(json.dumps({"type": "string", "format": "time"})))
    assert json.loads(text) == {"type": "string", "format": "time"}
