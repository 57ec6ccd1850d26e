#!/usr/bin/env python3
"""Keeps what `cargo bench -p runit-bench-core` has just measured: writes it to bench/results/ and prints it as a table.

collect.py NAME      bench/results/NAME.json; criterion's files are taken from $CARGO_TARGET_DIR or target/
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
YARDSTICK = "yardstick/fetch_add"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    measured = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "criterion"
    benchmarks = dict(sorted(read(folder) for folder in measured.glob("**/new")))
    if YARDSTICK not in benchmarks:
        sys.exit(f"nothing measured in {measured}")
    result = {
        "commit": said_by("git", "rev-parse", "--short=12", "HEAD"),
        "rustc": said_by("rustc", "--version"),
        "machine": {
            "cores": os.cpu_count(),
            "load_average_of_a_minute": round(os.getloadavg()[0], 1),
        },
        "benchmarks": benchmarks,
    }
    path = ROOT / "bench" / "results" / f"{sys.argv[1]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(as_text(result), encoding="utf-8")
    print_table(benchmarks)


def read(folder):
    name = json.loads((folder / "benchmark.json").read_text())["full_id"]
    median = json.loads((folder / "estimates.json").read_text())["median"]
    sample = json.loads((folder / "sample.json").read_text())
    interval = median["confidence_interval"]
    return name, {
        "median_ns": short(median["point_estimate"]),
        "low_ns": short(interval["lower_bound"]),
        "high_ns": short(interval["upper_bound"]),
        "samples_ns": [
            short(time / count)
            for time, count in zip(sample["times"], sample["iters"], strict=True)
        ],
    }


def short(number):
    return float(f"{number:.4g}")


def said_by(*command):
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def as_text(result):
    """One line for each benchmark, so that two results can be compared by eye."""
    benchmarks = result.pop("benchmarks")
    head = json.dumps(result, indent=2)[:-2]
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(numbers)}"
        for name, numbers in benchmarks.items()
    )
    return f'{head},\n  "benchmarks": {{\n{lines}\n  }}\n}}\n'


def print_table(benchmarks):
    print("| benchmark | median, ns | 95 % interval of it | in yardsticks |")
    print("| --- | ---: | --- | ---: |")
    yardstick = benchmarks[YARDSTICK]["median_ns"]
    for name, numbers in benchmarks.items():
        low, median, high = (numbers[f"{key}_ns"] for key in ("low", "median", "high"))
        row = [
            f"`{name}`",
            plain(median),
            f"{plain(low)} to {plain(high)}",
            f"{median / yardstick:.1f}",
        ]
        print(f"| {' | '.join(row)} |")


def plain(number):
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    main()
