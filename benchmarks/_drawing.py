"""The parts of all pictures: colours, lines with their names, bars.

Ours is thick and saturated in all of them, the program in C, which is the limit, grey and dashed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from benchmarks._saved import LIMIT, Measured, is_ours

_WIDTH = 4.9
"""Inches: the width of a telephone, where a point of the font is then a pixel. Wide pages show it a little larger."""

# Points, for the names of the programs: the longest has 27 letters.
_NAME_SIZE = 9


@dataclass(frozen=True)
class Look:
    """The colours for one kind of page. The background is the page's own."""

    words: str
    quiet: str
    grid: str
    limit: str
    ours: tuple[str, str]
    """On asyncio's loop, and on uvloop's."""
    others: tuple[str, ...]
    bars_of_ours: tuple[str, str]
    """User time, and system time."""
    bars: tuple[str, str]


LOOKS = {
    "light": Look(
        words="#1f2328",
        quiet="#59636e",
        grid="#d8dee4",
        limit="#6e7781",
        ours=("#f2701d", "#b93a06"),
        others=("#2f7ab8", "#7a5cc0", "#a0568c", "#3a8f6e", "#8a7038"),
        bars_of_ours=("#d9480f", "#f7b58c"),
        bars=("#7f8b99", "#c9d1da"),
    ),
    "dark": Look(
        words="#e6edf3",
        quiet="#9aa4af",
        grid="#30363d",
        limit="#8b949e",
        ours=("#e0661a", "#ffa257"),
        others=("#6cb0e8", "#b39af0", "#dd93c8", "#6cc7a1", "#cdb274"),
        bars_of_ours=("#ff8a4c", "#8f4a22"),
        bars=("#8c97a3", "#444d57"),
    ),
}


def canvas(look: Look, heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """An empty picture with one panel below the other, of so many inches."""
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout=ConstrainedLayoutEngine(h_pad=0.1))
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes in panels:
        plain(axes, look)
    return figure, list(panels)


def plain(axes: Axes, look: Look) -> None:
    """Remove frames and ticks, and use the colours of the page for the rest."""
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=look.quiet, length=0)
    axes.xaxis.label.set_color(look.quiet)


def heading(axes: Axes, look: Look, title: str, subtitle: str) -> None:
    """Write the title, and below it how to read the picture, both from the left edge of the picture."""
    for text, points, size, colour, weight in (
        (title, 26 if subtitle else 10, 12.5, look.words, "bold"),
        (subtitle, 11, 9.5, look.quiet, "normal"),
    ):
        axes.annotate(
            text,
            (0, 1),
            (4, points),
            xycoords=("figure fraction", "axes fraction"),
            textcoords="offset points",
            color=colour,
            weight=weight,
            fontsize=size,
        )


# ---------------------------------------------------------------------------------------------------- lines

Steps = Mapping[str, Mapping[int, float]]
"""The values to draw, by program and number."""


def curves(axes: Axes, look: Look, steps: Steps, words: Callable[[int], str]) -> None:
    """Draw one line a program, its name at its end; a program has the same colour in every picture of a run."""
    numbers = sorted({number for points in steps.values() for number in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [words(number) for number in numbers])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(numbers[0] / 1.3, numbers[-1] * 1.15)
    others = sorted(program for program in steps if not is_ours(program) and program != LIMIT)
    colours = dict(zip(others, itertools.cycle(look.others), strict=False))
    for program, points in steps.items():
        colours[program] = colours.get(program) or _own_colour(program, look)
        _curve(axes, program, points, colours[program])
    highest = max(value for points in steps.values() for value in points.values())
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, 1.06 * highest)
    else:
        axes.set_ylim(top=8 * highest)  # the names of lines that end close together need the room
    _names(axes, {program: points[max(points)] for program, points in steps.items()}, colours)


def _own_colour(program: str, look: Look) -> str:
    return look.limit if program == LIMIT else look.ours["uvloop" in program]


def _curve(axes: Axes, program: str, points: Mapping[int, float], colour: str) -> None:
    numbers, values = list(points), list(points.values())
    if program == LIMIT:
        axes.plot(numbers, values, color=colour, linestyle=(0, (4, 3)), linewidth=1.4, zorder=2)
    elif is_ours(program):
        axes.plot(numbers, values, color=colour, linewidth=3.2, marker="o", markersize=6, zorder=4)
    else:
        axes.plot(numbers, values, color=colour, linewidth=1.3, marker="o", markersize=3.2, zorder=3)


def _names(axes: Axes, ends: Mapping[str, float], colours: Mapping[str, str]) -> None:
    """Write each program's name where its line ends, apart from each other."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # before that nothing has a place
    to_axes = axes.transData + axes.transAxes.inverted()
    right = axes.get_xlim()[1]
    heights = {program: float(to_axes.transform((right, value))[1]) for program, value in ends.items()}
    spacing = 13 / 72 / (axes.get_window_extent().height / figure.dpi)
    for program, height in _apart(heights, spacing).items():
        axes.text(
            1.015,
            height,
            _label(program),
            transform=axes.transAxes,
            color=colours[program],
            fontsize=_NAME_SIZE,
            weight="bold" if is_ours(program) else "normal",
            va="center",
        )


def _label(program: str) -> str:
    return f"{program}, the limit" if program == LIMIT else program


def _apart(heights: Mapping[str, float], spacing: float) -> dict[str, float]:
    """Move the names apart, by as little as possible."""
    clusters: list[list[str]] = []

    def middle(names: Sequence[str]) -> float:
        return sum(heights[name] for name in names) / len(names)

    for name in sorted(heights, key=lambda name: heights[name]):
        clusters.append([name])
        while len(clusters) > 1:
            below, above = clusters[-2:]
            if middle(above) - middle(below) >= spacing * (len(above) + len(below)) / 2:
                break
            clusters[-2:] = [below + above]
    return {
        name: middle(names) + spacing * (place - (len(names) - 1) / 2)
        for names in clusters
        for place, name in enumerate(names)
    }


# ----------------------------------------------------------------------------------------------------- bars


def bars(axes: Axes, look: Look, measured: Sequence[Measured], longest: float = 0) -> None:
    """Draw one bar a program, the quickest on top.

    Args:
        axes: where.
        look: the colours.
        measured: whose.
        longest: seconds of the longest bar that fits; 0 for that of the slowest.
    """
    reach = 1e6 * (longest or max(each.cpu for each in measured))
    for place, each in enumerate(measured):
        _bar(axes, look, place, each)
        text = f"{1e6 * each.cpu:.{1 if reach >= 10 else 2}f}"
        weight = "bold" if is_ours(each.program) else "normal"
        axes.text(1e6 * each.cpu + reach / 80, place, text, va="center", color=look.words, weight=weight)
    names = [_label(each.program) for each in measured]
    axes.set_yticks(range(len(measured)), names, fontsize=_NAME_SIZE)
    for label, each in zip(axes.get_yticklabels(), measured, strict=True):
        label.set_fontweight("bold" if is_ours(each.program) else "normal")
        label.set_color(look.ours[1] if is_ours(each.program) else look.words)
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.set_xlim(0, reach * 1.14)
    axes.xaxis.set_visible(False)
    axes.grid(visible=False)


def _bar(axes: Axes, look: Look, place: int, each: Measured) -> None:
    """Draw the CPU time of one program, user time first."""
    hatch = "////" if each.program == LIMIT else ""
    colours = look.bars_of_ours if is_ours(each.program) else look.bars
    left = 0.0
    for colour, seconds in zip(colours, (each.user, each.system), strict=True):
        bar = axes.barh(place, 1e6 * seconds, left=left, color=colour, height=0.74, hatch=hatch)
        bar.patches[0].set_edgecolor(look.limit if hatch else colour)
        bar.patches[0].set_linewidth(0)
        left += 1e6 * seconds


class Key(TypedDict):
    handles: list[Patch]
    frameon: bool
    labelcolor: str
    fontsize: float
    borderaxespad: float


def key(look: Look) -> Key:
    """The legend of the two parts of a bar."""
    user, system = look.bars
    return {
        "handles": [
            Patch(color=user, label="user: the program"),
            Patch(color=system, label="system: the kernel"),
        ],
        "frameon": False,
        "labelcolor": look.quiet,
        "fontsize": 9.5,
        "borderaxespad": 0,
    }
