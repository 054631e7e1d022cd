"""The tables of docs/operations.md, derived from the code; `python tests/support/operations.py` prints them."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import Metric

from doherty_engine import Drafting
from doherty_service.admission import QueueBounds
from doherty_service.generation import Generations
from doherty_service.metrics import ServerCollector
from doherty_service.security import ANYBODY, Keyring, changing_keys, new_key
from doherty_service.settings import Settings
from doherty_service.telemetry import AbortCause, LatencyRecorder, LogWriter, RequestRecord

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service" / "doherty_service"
PAGE = ROOT / "docs" / "operations.md"
_REASON = re.compile(r"[A-Z]+(_[A-Z]+)*")
_LOGS = re.compile(r"^(log_(event|warning|error)|format_line|_log\.(debug|info|warning|error|log))$")
_HAS_LEVEL = re.compile(r"^(format_line|_log\.log)$")
_MAKES_ERRORS = re.compile(r"Error$|^__init__$|refus")


class _Drafting(Generations):
    """Pretends to be an engine that drafts one token per step."""

    def drafting(self) -> Drafting:
        return Drafting(1, 1, (1,))


def setting_rows() -> Iterator[str]:
    """Returns a row for each setting."""
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, "", {}) else str(default).lower() if isinstance(default, bool) else str(default)
        flag = f"--{name.replace('_', '-')}"
        cell = f"`{shown}`" if shown else "none"
        yield f"| `{flag}` | `DOHERTY_{name.upper()}` | {cell} | {field.description} |"


def metrics() -> list[Metric]:
    """Returns all of our metrics with all their labels."""
    recorder = LatencyRecorder(window=60)
    call = RequestRecord("/doherty.v1.GenerationService/StreamGenerate", "k", "r", ANYBODY, status="OK")
    call.mark_started(prompt_tokens=1, preprocess=0.0, engine_queue=0.0)
    call.mark_tokens(1)
    call.mark_tokens(1)
    call.mark_summary("stop", cached_tokens=1)
    recorder.finish(call)
    recorder.slot_freed(AbortCause.CANCELLED, 0.1)
    recorder.refusals["QUEUE_FULL"] += 1
    generations = _Drafting(recorder, QueueBounds(1, 1, 1.0))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        with changing_keys(path) as keys:
            keys.append(new_key("alice", {"max_concurrent": 1})[0])
        keyring = Keyring(path, recorder.refusals)
    collector = ServerCollector(
        recorder, generations, LogWriter(2), "synthetic", count_connections=lambda: 0, keyring=keyring
    )
    return list(collector.collect())


def exposed_name(metric: Metric) -> str:
    """Returns the name of a metric in Prometheus, without the suffixes of a histogram."""
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def metric_rows() -> Iterator[str]:
    """Returns a row for each metric."""
    for metric in metrics():
        labels = {label: None for sample in metric.samples for label in sample.labels if label != "le"}
        listed = ", ".join(f"`{label}`" for label in labels) or "none"
        yield f"| `{exposed_name(metric)}` | {metric.type} | {listed} | {metric.documentation} |"


def reasons_in_code() -> set[str]:
    """Returns the reasons with which the service raises errors."""
    return {reason for source in SERVICE.rglob("*.py") for reason in _reasons(ast.parse(source.read_text()))}


def _reasons(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if _MAKES_ERRORS.search(function):
                yield from _named(
                    [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "reason")]
                )
        elif isinstance(node, ast.FunctionDef):
            arguments = node.args.args
            defaults = zip(arguments[len(arguments) - len(node.args.defaults) :], node.args.defaults, strict=True)
            yield from _named([default for argument, default in defaults if argument.arg == "reason"])


def _named(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _REASON.fullmatch(node.value):
            yield node.value


def reasons_in_contract() -> dict[str, str]:
    """Returns the reasons in the table of the contract, with their statuses."""
    text = (ROOT / "proto" / "doherty" / "v1" / "generation_service.proto").read_text()
    statuses: dict[str, str] = {}
    for status, reasons in re.findall(r"^// \| ([A-Z_]+) \| (.+) \|$", text, re.MULTILINE):
        for part in reasons.split(";"):
            statuses |= dict.fromkeys((reason.strip() for reason in part.partition(":")[0].split(",")), status)
    return statuses


def events_in_code() -> set[str]:
    """Returns the names of all events that the log can contain."""
    events: set[str] = set()
    for source in SERVICE.rglob("*.py"):
        text = source.read_text()
        events |= {*_events(ast.parse(text)), *re.findall(r'"event": "([a-z_]+)"', text)}
    return events


def _events(tree: ast.AST) -> Iterator[str]:
    """Returns the names of events in calls that log, including calls that choose between two names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _LOGS.search(ast.unparse(node.func)):
            for part in ast.walk(node.args[1 if _HAS_LEVEL.search(ast.unparse(node.func)) else 0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


if __name__ == "__main__":
    print("\n".join([*setting_rows(), "", *metric_rows(), "", *reasons_in_contract(), "", *events_in_code()]))  # noqa: T201 - for its author
