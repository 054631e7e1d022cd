"""The list of other servers' faults is complete, and the tests that it names exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<number>\d+) \| [^|]+ \| (?P<place>[^|]+) \|$", re.MULTILINE)
FAULTS = 29


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_list_of_faults_is_complete() -> None:
    rows = ROW.findall((ROOT / "tests/faults/README.md").read_text())
    assert [int(number) for number, _ in rows] == list(range(1, FAULTS + 1))
    for number, place in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", place)
        assert named or place.startswith("cannot apply: "), f"fault {number} is not tested"
        for file, name in named:
            assert name in functions(ROOT / file), f"{file} has no {name}, which should test fault {number}"
