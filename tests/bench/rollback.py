"""How long from the call of a rollback until `resolve` gives the old version again? A measurement, not a test.

python -m tests.bench.rollback [TIMES] [apache|tansu]

The whole system on this machine: the request, the policy's decision, its signature, and the change travel over Kafka.
"""

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.system import System, embedded_system, to_production


def measure(system: System, times: int) -> list[float]:
    """Seconds of each rollback, from the call to the first other answer."""
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(1, times + 2):
            artifact = Path(scratch) / f"{number}.bin"
            artifact.write_text(f"model {number}")
            system.ana.register("churn", artifact, metrics={"accuracy": 0.9 + number / 1_000})
            to_production(system, number)
    found = []
    for expected in range(times, 0, -1):
        olga, eyes = system.olga, system.ana
        began = time.perf_counter()
        olga.rollback("churn", "measured")
        while eyes.resolve("churn").version != expected:
            pass
        found.append(time.perf_counter() - began)
    return found


def main(times: int, kind: str) -> None:
    with ExitStack() as held:
        found = measure(embedded_system(kind, held), times)
    median, worst = statistics.median(found) * 1e3, max(found) * 1e3
    sys.stdout.write(f"rollback on {kind}: {times} times, median {median:.0f} ms, worst {worst:.0f} ms\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 10, arguments[1] if len(arguments) > 1 else "apache")
