#!/usr/bin/env python3
"""Whether docs/METRICS.md names the metrics, and the reasons of refusals and cuts, that the code has, and no others; and whether
there is a rule for each metric that it says to be alerted on.

check_metrics.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METRIC = r"runit_[a-z_]+"


def main():
    document = read("docs/METRICS.md")
    code = product_code(read("gateway/src/metrics.rs")) + product_code(
        read("control/src/metrics.rs")
    )
    answers = product_code(read("gateway/src/answer.rs"))
    connection = product_code(read("gateway/src/connection.rs"))
    rows = "\n".join(re.findall(r"^\| (`.*?) \|", document, re.MULTILINE))
    problems = [
        *differences(
            "metric",
            re.findall(f'"({METRIC})"', code),
            re.findall(f"`({METRIC})`", rows),
        ),
        *differences(
            "reason",
            [
                *re.findall(r'\(S::\w+, "(\w+)"', answers),
                *re.findall(r'=> "(\w+)",$', answers, re.MULTILINE),
            ],
            re.findall(r"`(\w+)`", re.sub(METRIC, "", rows)),
        ),
        *differences(
            "cut",
            re.findall(r'Self::\w+ => "(\w+)"', connection),
            re.findall(
                r"`(\w+)`", re.search(r"`reason`: (`released`.*?) \|", document)[1]
            ),
        ),
        *(
            f"{file}: metric {name} is not in the code"
            for file in ["config/prometheus/alerts.yml", "config/grafana/runit.json"]
            for name in sorted(set(re.findall(METRIC, read(file))))
            if f'"{name.removesuffix("_bucket")}"' not in code
        ),
    ]
    rules = read("config/prometheus/alerts.yml")
    problems += (
        f"metric {name} is to be alerted on, and no rule does"
        for row in re.findall(r"^\| `.*\*\*alert.*", document, re.MULTILINE | re.IGNORECASE)
        for name in re.findall(f"`({METRIC})`", row.split(" | ")[0])
        if not re.search(rf"\b{name}\b", rules)
    )
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(f"metrics: {len(problems)} wrong")
    print("metrics: documented as they are")


def differences(kind, coded, documented):
    yield from (
        f"{kind} {name} is not documented"
        for name in sorted(set(coded) - set(documented))
    )
    yield from (
        f"{kind} {name} is not in the code"
        for name in sorted(set(documented) - set(coded))
    )


def product_code(text):
    return text.split("#[cfg(test)]", maxsplit=1)[0]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
