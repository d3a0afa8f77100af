"""``python -m benchmarks``: the rows to measure, for how long, and the files to write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._catalogue import CONTESTANTS, HEADLINES, ROWS
from benchmarks._driver import Entrant, run
from benchmarks._publish import publish
from benchmarks._report import circumstances, show, show_progress, write_json
from benchmarks._rows import Row

_DESCRIPTION = "Measure wireline against its peers, every byte checked."
_EPILOG = """exit codes: 0, all contestants did their work, whether or not a target was reached;
1, one returned wrong bytes, or too few, or failed; 2, usage"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only rows with one of these in their name")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument("--headline", action="store_true", help="only the rows that matter most")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 7, or 5 with --quick)")
    parser.add_argument("--quick", action="store_true", help="less work in a round")
    parser.add_argument("--scale", type=float, metavar="X", help="X times the work in a round (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every reading there too")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="write pictures and tables of that FILE there"
    )
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="saved", help="measure nothing: take that FILE"
    )
    return parser


def main(
    arguments: Sequence[str] | None = None,
    contestants: Sequence[Entrant] = CONTESTANTS,
    rows: Sequence[Row] = ROWS,
) -> int:
    """Measure, print, and return the exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    rounds = (5 if chosen.quick else 7) if chosen.rounds is None else chosen.rounds
    scale = (0.25 if chosen.quick else 1.0) if chosen.scale is None else chosen.scale
    if rounds < 1 or not scale > 0:
        parser.error("there must be at least one round, with something to do")
    rows = [row for row in rows if not chosen.words or any(word in row.name for word in chosen.words)]
    rows = [row for row in rows if row.name in HEADLINES or not chosen.headline]
    if not rows:
        parser.error("no row has such a name; --list shows all")
    if chosen.list:
        print("\n".join(row.name for row in rows))
        return 0
    file: Path | None = chosen.saved or chosen.json
    if chosen.saved if chosen.plots is None else file is None:
        parser.error("--plots DIR needs --json FILE or --from FILE, and --from FILE needs --plots DIR")
    if chosen.saved:
        try:
            publish(chosen.saved, rows, chosen.plots)
        except (OSError, ValueError) as error:
            parser.error(f"--from {chosen.saved}: {error}")
        return 0
    needed = {name for row in rows for name in row.contestants}
    running = [each for each in contestants if each.name in needed]
    results = run(running, rounds, scale, show_progress)
    show_progress(0, 0, "")
    facts = circumstances(rounds, scale)
    show(rows, results, facts)
    if chosen.json:
        write_json(chosen.json, rows, results, facts)
    if file and chosen.plots:
        publish(file, rows, chosen.plots)
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
