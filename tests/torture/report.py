"""The report of the torture harness: a table in Markdown and a list of the findings."""

from __future__ import annotations

from collections.abc import Sequence

from tests.torture.registry import Finding, Outcome, merged

TITLES = {
    "syscalls": "system calls that fail in turn",
    "interruptions": "exceptions and `close` from signal handlers",
    "forks": "forks in every state",
    "collector": "the collector at every allocation",
    "exits": "the end of the interpreter",
    "scale": "thousands of connections",
    "threads": "threads that share sockets",
    "hostile": "hostile peers",
}

_LINES = 40
"""Lines of a finding's text: stacks of several threads, mostly."""

_COLUMNS = ("scenes", "calls failed", "interruptions", "forks", "connections", "minutes", "findings")


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table of docs/explanation/promises.md."""
    rows = [
        [
            TITLES[outcome.name],
            *_numbers(outcome),
            f"{outcome.seconds / 60:.1f}",
            f"{len(outcome.findings)}",
        ]
        for outcome in outcomes
    ]
    sums = [f"{sum(_raw(outcome)[i] for outcome in outcomes):,}" for i in range(5)]
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    found = sum(len(outcome.findings) for outcome in outcomes)
    rows.append(["**all**", *sums, f"{minutes:.1f}", str(found)])
    lines = [
        "| | " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    notes = [f"- {TITLES[outcome.name]}: {note}" for outcome in outcomes for note in outcome.notes]
    return "\n".join([*lines, "", *notes] if notes else lines) + "\n"


def _raw(outcome: Outcome) -> list[int]:
    counts = outcome.counts
    return [counts.scenes, counts.calls_failed, counts.interruptions, counts.forks, counts.connections]


def _numbers(outcome: Outcome) -> list[str]:
    return [f"{number:,}" if number else "" for number in _raw(outcome)]


def listed(findings: Sequence[Finding]) -> str:
    """The findings, for a terminal; those that say the same are said once."""
    lines = []
    for number, (finding, count) in enumerate(merged(findings), 1):
        often = f", {count} times" if count > 1 else ""
        fault = f" ({finding.fault})" if finding.fault else ""
        lines.append(f"{number}. {finding.part}: {finding.scene}{fault}{often}")
        lines.append(f"   done:     {finding.done}")
        lines += [
            f"   {'' if i else 'happened:':9} {line}"
            for i, line in enumerate(finding.happened.splitlines()[:_LINES])
        ]
    return "\n".join(lines)
