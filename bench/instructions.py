#!/usr/bin/env python3
"""Counts what core's hot path takes in instructions, which no other work on the machine changes, and holds bounds on it.

instructions.py          fails when a case takes more than its bound in bench/instructions.json
instructions.py --set    sets the bounds 8 % above what is counted now
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUNDS = ROOT / "bench/instructions.json"
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/repeat"
HEAD_ROOM = 1.08
FEW, MANY = 200, 1200


def main():
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "-p", "runit-bench-core", "--bin", "repeat"],
        cwd=ROOT,
        check=True,
    )
    names = subprocess.run([PROGRAM], capture_output=True, text=True).stdout.split()
    counts = {name: round((count(name, MANY) - count(name, FEW)) / (MANY - FEW)) for name in names}
    if sys.argv[1:] == ["--set"]:
        bounds = {name: int(counted * HEAD_ROOM) for name, counted in counts.items()}
        BOUNDS.write_text(json.dumps(bounds, indent=2) + "\n", encoding="utf-8")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    bounds = json.loads(BOUNDS.read_text(encoding="utf-8"))
    print("| case | instructions | bound |\n| --- | ---: | ---: |")
    for name, counted in counts.items():
        print(f"| {name} | {counted} | {bounds.get(name, 'none')} |")
    if counts.keys() != bounds.keys():
        sys.exit(f"cases and bounds differ: {sorted(counts.keys() ^ bounds.keys())}")
    beyond = [name for name, counted in counts.items() if counted > bounds[name]]
    if beyond:
        sys.exit(f"more instructions than the bound: {', '.join(beyond)}")


def count(name, times):
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM, name, str(times)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


if __name__ == "__main__":
    main()
