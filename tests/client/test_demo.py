import subprocess
import sys

import pytest

from doherty.cli import QUESTIONS
from support.command import EXAMPLES, SECONDS, environment


def run_demo(**more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, EXAMPLES / "demo.py"),
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=SECONDS,
        env=environment(**more),
    )


@pytest.mark.model
def test_the_demo_asks_a_real_model_ten_questions() -> None:
    finished = run_demo()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "SmolLM2-135M-Instruct on llamacpp" in finished.stdout
    for number, question in enumerate(QUESTIONS, 1):
        _, _, behind = finished.stdout.partition(f"\n{number:2}. {question}\n")
        answer, figure, _ = behind.partition(" ms to the last token")
        assert figure
        assert len(answer.split()) > 2, f"nothing between {question!r} and its latency"
    assert "\n11 answers in the last " in finished.stdout


def test_a_server_that_cannot_start_ends_the_demo_with_its_last_message() -> None:
    finished = run_demo(DOHERTY_MODEL="/no/such/model.gguf")
    assert finished.returncode == 1
    assert "/no/such/model.gguf" in finished.stderr
    assert "Traceback" not in finished.stderr
