"""The alerts of deploy/prometheus, evaluated by promtool on simulated series of servers."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # as in tests/service/test_operations_doc.py

from support.programs import program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "doherty.rules.yml"

SEVERITIES: dict[str, str] = {
    rule["alert"]: rule["labels"]["severity"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
}
MINUTE, DAY = 4, 86_400
"""One scrape every 15 seconds; times are in seconds."""


@dataclass(frozen=True)
class Situation:
    """The metrics of a server over some time, and exactly those alerts that must fire at the end."""

    name: str
    minutes: int
    fires: tuple[str, ...]
    series: dict[str, int | str]
    """The series by name, without the label of the instance: the growth of a counter per scrape, or all values."""


def requests(rpc: str, status: str) -> str:
    return f'doherty_requests_total{{rpc="{rpc}",status="{status}"}}'


def refusals(reason: str) -> str:
    return f'doherty_refusals_total{{reason="{reason}"}}'


def objective(met: str) -> str:
    return f'doherty_first_token_objective_total{{met="{met}"}}'


def crash_loop(minutes: int, *, tells_start: bool) -> dict[str, int | str]:
    """Returns the scrapes of a server that loads for 30 s, exits, and is restarted 5 s later."""
    moments = [divmod(15 * scrape, 35) for scrape in range(minutes * MINUTE + 1)]
    is_up = [seconds < 30 for _, seconds in moments]
    series: dict[str, int | str] = {
        'up{job="doherty"}': " ".join("1" if up else "0" for up in is_up),
        "doherty_ready": " ".join("0" if up else "stale" for up in is_up),
    }
    if tells_start:
        starts = [str(35 * run) if up else "stale" for (run, _), up in zip(moments, is_up, strict=True)]
        series['process_start_time_seconds{job="doherty"}'] = " ".join(starts)
    return series


def growing(*parts: tuple[int, int]) -> str:
    """Returns the values of a counter that grows by a constant per scrape during each part of some minutes."""
    values = [0]
    for rate, minutes in parts:
        values += [values[-1] + rate * scrape for scrape in range(1, minutes * MINUTE + 1)]
    return " ".join(map(str, values))


MULTIPLEX, STREAM = "MultiplexGenerate", "StreamGenerate"
CRASHES = ("DohertyNotReady", "DohertyRestarting")
BUDGET = ("DohertyFirstTokenBudgetBurnsFast", "DohertyFirstTokenBudgetBurnsSlowly")
SITUATIONS = [
    Situation(
        "all is well",
        30,
        (),
        {
            'up{job="doherty"}': "1x120",
            "doherty_ready": "1x120",
            'process_start_time_seconds{job="doherty"}': "0x120",
            requests(MULTIPLEX, "OK"): 50,
            requests(MULTIPLEX, "UNAVAILABLE"): 0,
            refusals("QUEUE_FULL"): 0,
            objective("yes"): 50,
            objective("no"): 0,
            "doherty_engine_restarts_total": 0,
            "doherty_certificate_expiry_timestamp_seconds": f"{60 * DAY}x120",
        },
    ),
    Situation(
        "half of what a MultiplexGenerate brings is refused",
        25,
        ("DohertyRefusing",),
        {
            refusals("QUEUE_FULL"): 5,
            requests(MULTIPLEX, "RESOURCE_EXHAUSTED"): 5,
            requests(MULTIPLEX, "OK"): 5,
        },
    ),
    Situation(
        "one of a hundred is refused, nearly all by MultiplexGenerate",
        25,
        (),
        {
            refusals("QUEUE_FULL"): 2,
            requests(STREAM, "RESOURCE_EXHAUSTED"): 1,
            requests(STREAM, "OK"): 1,
            requests(MULTIPLEX, "RESOURCE_EXHAUSTED"): 1,
            requests(MULTIPLEX, "OK"): 197,
        },
    ),
    Situation(
        "keys beyond their limits",
        25,
        (),
        {refusals("KEY_LIMIT"): 50, requests(STREAM, "RESOURCE_EXHAUSTED"): 50, requests(STREAM, "OK"): 5},
    ),
    Situation("a start that crashes every 35 s", 26, CRASHES, crash_loop(26, tells_start=True)),
    Situation("the same where nothing tells the start", 26, CRASHES, crash_loop(26, tells_start=False)),
    Situation(
        "one restart",
        26,
        (),
        {
            'up{job="doherty"}': "1x40 0 1x63",
            "doherty_ready": "1x40 stale 0x10 1x53",
            'process_start_time_seconds{job="doherty"}': "0x40 stale 615x63",
        },
    ),
    Situation("it is gone", 10, ("DohertyDown",), {'up{job="doherty"}': "1x10 0x30"}),
    Situation(
        "everything ends at its deadline",
        10,
        ("DohertyDeadlinesExceeded",),
        {requests(STREAM, "DEADLINE_EXCEEDED"): 50, requests(STREAM, "OK"): 0, requests("GetLatency", "OK"): 500},
    ),
    Situation(
        "one of ten ends at its deadline",
        25,
        (),
        {requests(STREAM, "DEADLINE_EXCEEDED"): 5, requests(STREAM, "OK"): 45},
    ),
    Situation(
        "half of all are UNAVAILABLE",
        10,
        ("DohertyUnavailable",),
        {requests("Generate", "UNAVAILABLE"): 50, requests("Generate", "OK"): 50},
    ),
    Situation(
        "nothing is answered from the first request on",
        70,
        ("DohertyDeadlinesExceeded", *BUDGET),
        {requests(MULTIPLEX, "DEADLINE_EXCEEDED"): 50, objective("no"): 50, objective("yes"): 0},
    ),
    Situation(
        "a third of the first tokens are late",
        70,
        BUDGET,
        {objective("yes"): 20, objective("no"): 10},
    ),
    Situation(
        "one of twelve is late, for an hour and a half",
        90,
        ("DohertyFirstTokenBudgetBurnsSlowly",),
        {objective("yes"): 11, objective("no"): 1},
    ),
    Situation(
        "all were late for five minutes of the last hour",
        70,
        (),
        {objective("yes"): growing((10, 60), (0, 5), (10, 5)), objective("no"): growing((0, 60), (10, 5), (0, 5))},
    ),
    Situation(
        "they were late, and are not any more",
        80,
        (),
        {objective("yes"): growing((0, 20), (10, 60)), objective("no"): growing((10, 20), (0, 60))},
    ),
    Situation("one of 200 is late", 90, (), {objective("yes"): 199, objective("no"): 1}),
    Situation(
        "half of the answers begin late",
        25,
        ("DohertyFirstTokenSlow",),
        {
            'doherty_time_to_first_token_seconds_bucket{le="0.4"}': 5,
            "doherty_time_to_first_token_seconds_count": 10,
        },
    ),
    Situation(
        "the engine was restarted", 12, ("DohertyEngineRestarted",), {"doherty_engine_restarts_total": "0x30 1x20"}
    ),
    Situation(
        "the first call of a key fails",
        12,
        ("DohertyInternalErrors",),
        {requests(STREAM, "INTERNAL"): "_x30 1x20", "doherty_ready": "1x50"},
    ),
    Situation(
        "slots are kept for two seconds",
        40,
        ("DohertySlotsKept",),
        {
            'doherty_slot_free_seconds_bucket{le="1.5"}': 0,
            'doherty_slot_free_seconds_bucket{le="2.5"}': 1,
            'doherty_slot_free_seconds_bucket{le="+Inf"}': 1,
        },
    ),
    Situation(
        "a certificate has 13 days left",
        70,
        ("DohertyCertificateExpires",),
        {"doherty_certificate_expiry_timestamp_seconds": f"{13 * DAY}x280"},
    ),
]


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid(promtool: str) -> None:
    run(promtool, "check", "rules", RULES)


def test_exactly_the_expected_alerts_fire_in_each_situation(promtool: str, tmp_path: Path) -> None:
    run_tests(promtool, tmp_path, [case(situation, promql_expr_test=[firing(situation)]) for situation in SITUATIONS])


def test_every_alert_fires_in_a_situation() -> None:
    assert {alert for situation in SITUATIONS for alert in situation.fires} == set(SEVERITIES)


def test_the_summary_of_an_alert_contains_the_share(promtool: str, tmp_path: Path) -> None:
    situation = next(candidate for candidate in SITUATIONS if candidate.fires == ("DohertyRefusing",))
    annotations = {
        "summary": "a refuses 50% of what it is asked for",
        "runbook": "docs/operations.md#dohertyrefusing",
    }
    alert = {"exp_labels": {"severity": "warning", "instance": "a"}, "exp_annotations": annotations}
    rule = {"alertname": "DohertyRefusing", "eval_time": f"{situation.minutes}m", "exp_alerts": [alert]}
    run_tests(promtool, tmp_path, [case(situation, alert_rule_test=[rule])])


def firing(situation: Situation) -> dict[str, Any]:
    """Returns a promtool test that only the alerts of a situation fire at its end."""
    samples = [{"labels": f"{{{labels_of(alert)}}}", "value": 1} for alert in situation.fires]
    expression = 'sum by (alertname, severity) (ALERTS{alertstate="firing"})'
    return {"expr": expression, "eval_time": f"{situation.minutes}m", "exp_samples": samples}


def labels_of(alert: str) -> str:
    return f'alertname="{alert}",severity="{SEVERITIES[alert]}"'


def case(situation: Situation, **tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns promtool tests on the series of a situation."""
    count = situation.minutes * MINUTE
    series = [
        {"series": with_instance(name), "values": f"0+{values}x{count}" if isinstance(values, int) else values}
        for name, values in situation.series.items()
    ]
    return {"name": situation.name, "interval": "15s", "input_series": series, **tests}


def run_tests(promtool: str, folder: Path, cases: list[dict[str, Any]]) -> None:
    """Lets promtool evaluate the rules every 30 seconds."""
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": cases}))
    run(promtool, "test", "rules", file)


def with_instance(name: str) -> str:
    metric, brace, labels = name.partition("{")
    return f'{metric}{{instance="a",{labels}' if brace else f'{metric}{{instance="a"}}'
