"""`python -m bench`: runs the scenarios on each worker class and prints the figures beside the goals."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import Figure, table
from bench.scenarios import SCENARIOS, Run
from bench.servers import CLASSES, Lab, Unmeasured

RESULTS = Path(__file__).with_name("results.json")

DESCRIPTORS = 4096
"""1,000 streams need two each in the gateway and one in the upstream."""


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=SCENARIOS, metavar="NAME", help=f"{', '.join(SCENARIOS)}; repeatable")
    add("--worker", action="append", choices=CLASSES, help="one worker class instead of both")
    add("--rounds", type=int, metavar="N", help="how often each side is measured (12; 6 when quick)")
    add("--quick", action="store_true", help="fewer requests and rounds: about a quarter of the time")
    add("--control", action="store_true", help="a second bare relay in the gateway's place: shows the noise")
    add("--json", type=Path, default=RESULTS, metavar="PATH", help="where the figures go (bench/results.json)")
    chosen = parser.parse_args()
    chosen.rounds = max(1, chosen.rounds or (6 if chosen.quick else 12))
    return chosen


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def measure(run: Run, names: list[str]) -> tuple[list[Figure], dict[str, str]]:
    """Run scenarios one after the other; return figures and, by scenario, why one could not be measured."""
    found: list[Figure] = []
    failures: dict[str, str] = {}
    for name in names:
        print(f"{run.worker}: {name} …", file=sys.stderr, flush=True)
        try:
            found += SCENARIOS[name](run)
        except Unmeasured as reason:
            failures[name] = str(reason)
    return found, failures


def main() -> int:
    """Measure, print, write the JSON file. A missed goal is said and no failure; 1 if something was not measured."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))
    report: dict[str, Any] = {name: getattr(chosen, name) for name in ("rounds", "quick", "control")}
    report["machine"] = machine()
    with tempfile.TemporaryDirectory(prefix="lockgate-bench-") as folder:
        try:
            lab = Lab(Path(folder), chosen.control)
        except Unmeasured as reason:
            sys.exit(f"bench: {reason}")
        try:
            for worker in chosen.worker or CLASSES:
                run = Run(lab, worker, chosen.rounds, chosen.quick)
                found, failures = measure(run, chosen.only or list(SCENARIOS))
                report[worker] = {"figures": [figure.as_dict() for figure in found], "unmeasured": failures}
                print(f"\n{worker}, one worker process, medians of {chosen.rounds} rounds\n\n{table(found)}\n")
                for name, why in failures.items():
                    print(f"not measured: {name}: {why}\n")
                sys.stdout.flush()
        finally:
            lab.close()
    chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(report[worker]["unmeasured"] for worker in chosen.worker or CLASSES))


if __name__ == "__main__":
    sys.exit(main())
