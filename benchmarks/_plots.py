"""Pictures of the numbers of one run, as SVG, for light pages and for dark ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from benchmarks._drawing import LOOKS, Look, Steps, bars, canvas, curves, heading, key
from benchmarks._saved import LIMIT, PLAIN_ECHO, Measured, Saved, doing, growing
from benchmarks._task import Task
from benchmarks._words import in_bytes

LINES = PLAIN_ECHO._replace(what="lines")
_CPU_TIME = "µs of CPU time a message; less is better"

# -------------------------------------------------------------------------------------------------------- growth


def rate_by_connections(saved: Saved, look: Look) -> Figure | None:
    """Draw the rate against the number of connections."""
    steps = growing("connections", saved.measured)
    if not steps:
        return None
    figure, [axes] = canvas(look, [4.3])
    heading(axes, look, "Messages a second", "echo of 64 bytes, the server on one core; higher is better")
    axes.set_xlabel("connections")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e3:g} k" if value else "0"))
    curves(axes, look, _values(steps, lambda point: point.rate), str)
    return figure


def rate_by_size(saved: Saved, look: Look) -> Figure | None:
    """Draw MB a second against the size of a message, and the same as a share of the C program's rate."""
    steps = growing("bytes", saved.measured)
    if not steps:
        return None
    figure, [above, *below] = canvas(look, [3.1, 3.5] if LIMIT in steps else [4.3])
    heading(above, look, "MB a second, each way", "echo, 64 connections, one core; higher is better")
    above.set_yscale("log")
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    above.yaxis.set_minor_locator(NullLocator())
    curves(above, look, _values(steps, lambda point: point.rate * (point.work.bytes or 0) / 1e6), _prefixed)
    for axes in below:
        heading(axes, look, "The same, as a share of the C program's rate", "")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        curves(axes, look, _parts(steps, steps[LIMIT]), _prefixed)
    (below or [above])[-1].set_xlabel("bytes in a message")
    return figure


def _prefixed(size: int) -> str:
    """The number without its unit, which the axis names."""
    return in_bytes(size).removesuffix("B").rstrip()


def _values(
    steps: Mapping[str, Mapping[int, Measured]], value: Callable[[Measured], float]
) -> dict[str, dict[int, float]]:
    return {
        program: {number: value(each) for number, each in points.items()} for program, points in steps.items()
    }


def _parts(steps: Mapping[str, Mapping[int, Measured]], limit: Mapping[int, Measured]) -> Steps:
    """Divide all rates by those of the limit, where there are both."""
    return {
        program: {number: points[number].rate / limit[number].rate for number in points if number in limit}
        for program, points in steps.items()
        if points.keys() & limit.keys()
    }


# ----------------------------------------------------------------------------------------------------- CPU time


def cpu_bars(work: Task, title: str) -> Callable[[Saved, Look], Figure | None]:
    """Make a picture of the CPU time that each program needs for one task."""

    def draw(saved: Saved, look: Look) -> Figure | None:
        measured = doing(work, saved.measured)
        if not measured:
            return None
        figure, [axes] = canvas(look, [1.3 + 0.29 * len(measured)])
        bars(axes, look, measured)
        heading(axes, look, title, _CPU_TIME)
        figure.legend(**key(look), loc="outside lower right", ncols=2)
        return figure

    return draw


def headline(saved: Saved, look: Look) -> Figure | None:
    """Draw the two tasks of the first page, one below the other, with the best-known programs."""
    works = {"Echo, 64 bytes": PLAIN_ECHO, "Lines, 64 bytes": LINES}
    chosen = {title: _known(doing(work, saved.measured)) for title, work in works.items()}
    if not all(chosen.values()):
        return None
    figure, panels = canvas(look, [1.0 + 0.29 * len(measured) for measured in chosen.values()])
    longest = max(each.cpu for measured in chosen.values() for each in measured)
    for axes, (title, measured) in zip(panels, chosen.items(), strict=True):
        bars(axes, look, measured, longest)
        heading(axes, look, title, _CPU_TIME)
    figure.legend(**key(look), loc="outside lower right", ncols=2)
    return figure


def _known(measured: Sequence[Measured]) -> list[Measured]:
    """The programs on the level of streams, and the limit."""
    return [each for each in measured if "Protocol" not in each.program and "Nim" not in each.program]


# ------------------------------------------------------------------------------------------------------- all

Picture = Callable[[Saved, Look], Figure | None]

PICTURES: dict[str, Picture] = {
    "headline": headline,
    "rate-by-connections": rate_by_connections,
    "rate-by-size": rate_by_size,
    "cpu-echo": cpu_bars(PLAIN_ECHO, "Echo: 64 connections, 64 bytes"),
    "cpu-lines": cpu_bars(LINES, "Lines of 64 bytes, 64 connections"),
    "cpu-lines-32": cpu_bars(LINES._replace(outstanding=32), "Lines of 64 bytes, 32 outstanding"),
    "cpu-tls-echo": cpu_bars(PLAIN_ECHO._replace(tls=True), "TLS 1.3 echo: 64 connections, 64 bytes"),
}
"""By the name of its files, without ``-light.svg`` and so on."""


def _settings() -> AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            "font.family": ["DejaVu Sans"],  # part of matplotlib, so the pictures are the same everywhere
            "font.size": 10.5,
            "svg.hashsalt": "wireline",  # otherwise the ids in an SVG differ in every run
            "savefig.transparent": True,
            "hatch.linewidth": 0.8,
        }
    )


def draw_all(saved: Saved, directory: Path) -> list[str]:
    """Draw every picture that has numbers.

    Args:
        saved: the numbers.
        directory: where the files are written.

    Returns:
        The names of the pictures that have none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    told = f"drawn from results {saved.fingerprint}"
    missing: dict[str, None] = {}
    with _settings():
        for name, picture in PICTURES.items():
            for kind, look in LOOKS.items():
                figure = picture(saved, look)
                if figure is None:
                    missing[name] = None
                    continue
                # Without the date the same numbers give the same file.
                metadata = {"Date": None, "Description": told}
                figure.savefig(directory / f"{name}-{kind}.svg", metadata=metadata)
    return list(missing)
