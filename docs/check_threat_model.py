#!/usr/bin/env python3
"""Whether docs/THREAT_MODEL.md tells the truth about tests: every row has a known state, every test that it names
exists, and a row without tests says why. Prints how many rows are in which state.

    check_threat_model.py
"""

import collections
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "THREAT_MODEL.md"

# state -> whether a row must name tests
STATES = {
    "held": True,
    "partly": True,
    "open": False,
    "cannot": False,
    "not offered": False,
}
ROW = re.compile(r"^\| (?P<name>[A-Z]\d+) \|(?P<cells>.*)\|$")
TEST = re.compile(r"`([\w./-]+)::(\w+)`")


def main():
    problems = []
    states = collections.Counter()
    names = collections.Counter()
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        row = ROW.match(line)
        if row is None:
            continue
        name = row["name"]
        names[name] += 1
        attack, defence, state, tests = (
            cell.strip() for cell in row["cells"].split("|")
        )
        states[state] += 1
        problems += [
            f"{name}: {problem}"
            for problem in row_problems(attack, defence, state, tests)
        ]
    problems += [f"{name}: there twice" for name, count in names.items() if count > 1]
    problems += [f"{name}: missing" for name in gaps(names)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems or not names:
        sys.exit(f"threat model: {len(problems)} wrong in {len(names)} rows")
    counted = ", ".join(f"{states[state]} {state}" for state in STATES)
    print(f"threat model: {counted}; all tests exist")


def row_problems(attack, defence, state, tests):
    if not attack or not defence:
        yield "says nothing"
    if state not in STATES:
        yield f"unknown state {state!r}"
        return
    named = TEST.findall(tests)
    if STATES[state] and not named:
        yield f"{state}, but without a test"
    if (state == "partly") != ("Open:" in defence):
        yield "'partly' and 'Open:' belong together"
    for file, test in named:
        if not has_test(ROOT / file, test):
            yield f"{file} has no test {test}"


def has_test(path, test):
    """A function that a test attribute or macro makes a test, or one that pytest takes for one."""
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return re.search(rf"^def {test}\(", text, re.MULTILINE) is not None
    attributes = r"#\[(?:tokio::)?test(?:\([^\]]*\))?\]\s*(?:#\[[^\]]*\]\s*)*"
    if re.search(rf"{attributes}(?:async )?fn {test}\(", text):
        return True
    # A contract suite: a public function there, named in the suite's list.
    in_suite = re.search(rf"^pub(?:\(crate\))? async fn {test}\b", text, re.MULTILINE)
    suite = path.with_name("mod.rs")
    return (
        in_suite is not None
        and suite.is_file()
        and re.search(rf"^ +{test},$", suite.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


def gaps(names):
    """Numbers that are left out within a letter: a row must not vanish unnoticed."""
    for letter in sorted({name[0] for name in names}):
        numbers = [int(name[1:]) for name in names if name[0] == letter]
        yield from (
            f"{letter}{number}"
            for number in range(1, max(numbers) + 1)
            if number not in numbers
        )


if __name__ == "__main__":
    main()
