"""The torture harness as a program; see registry.py."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tests.torture import registry, report
from tests.torture.registry import Budget, Finding, Outcome

_printing = threading.Lock()


def _say(finding: Finding) -> None:
    first = finding.happened.splitlines()[0] if finding.happened else ""
    fault = f" [{finding.fault}]" if finding.fault else ""
    with _printing:
        print(f"{finding.part}: {finding.scene}: {finding.done}: {first}{fault}", file=sys.stderr, flush=True)


def main() -> int:
    known = registry.names()
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Try the library hard.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--size", choices=registry.SIZES, default=os.environ.get("WIRELINE_TORTURE", "ci"))
    parser.add_argument(
        "--full", action="store_const", const="full", dest="size", help="everything; it takes long"
    )
    parser.add_argument("--seconds", type=float, help="for each part, instead of what the size allows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="scenes to try, where a part has them by name"
    )
    parser.add_argument("--jobs", type=int, default=2, help="parts at a time (2)")
    parser.add_argument("--markdown", action="store_true", help="print the table only")
    parser.add_argument("--json", metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    parts = options.parts or known
    for name in parts:
        if name not in known:
            parser.error(f"there is no part {name!r}: {', '.join(known)}")

    def run(name: str) -> Outcome:
        return registry.run(name, Budget(options.size, options.seconds, options.seed, options.only), _say)

    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        outcomes = list(pool.map(run, parts))
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    if options.json:
        with open(options.json, "w") as file:
            json.dump([asdict(outcome) for outcome in outcomes], file, indent=1)
    if findings and not options.markdown:
        print(report.listed(findings), end="\n\n")
    print(report.markdown(outcomes), end="")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
