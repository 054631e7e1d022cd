"""What importing the SDK costs: `python benchmarks/imports.py [ROUNDS]`.

Starts fresh interpreters in turn, and prints the CPU time that each import adds to a bare interpreter, as a ratio to
that of `import grpc` in the same round. The SDK should stay below 2, and the generated code, as a server imports it,
near 1.
"""

import resource
import statistics
import subprocess
import sys

IMPORTS = {
    "grpc": "import grpc",
    "doherty": "import doherty",
    "doherty.v1": "from doherty.v1 import generation_service_pb2_grpc",
    "Client": "from doherty import Client",
    "AsyncClient": "from doherty import AsyncClient",
}


def cpu_seconds(code: str) -> float:
    """Returns the CPU time of an interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, list[float]]:
    """Returns the ratios of every import in each round."""
    ratios: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        bare = cpu_seconds("pass")
        costs = {name: cpu_seconds(code) - bare for name, code in IMPORTS.items()}
        for name, cost in costs.items():
            ratios[name].append(cost / costs["grpc"])
    return ratios


def main() -> None:
    """Measures the imports, and prints the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"{'import':<12} {'median':>7} {'lowest':>7} {'highest':>8}   of `import grpc`, {rounds} rounds")
    for name, ratios in measure(rounds).items():
        print(f"{name:<12} {statistics.median(ratios):>7.2f} {min(ratios):>7.2f} {max(ratios):>8.2f}")


if __name__ == "__main__":
    main()
