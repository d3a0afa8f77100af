"""The page of the benchmarks shows all measurements, and says where others are ahead."""

from __future__ import annotations

import importlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import _publish
from benchmarks.__main__ import main
from benchmarks._catalogue import ROWS
from benchmarks._driver import Results
from benchmarks._publish import PAGES, publish
from benchmarks._report import circumstances, write_json
from benchmarks._rows import DurationRow, MemoryRow, RateRow, Reading, Row
from benchmarks._saved import PLAIN_ECHO, Saved, doing, growing, read
from benchmarks._task import Doer, Task

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = DOCS.parent / "benchmarks" / "results.json"
NAMED = re.findall(r"^```\{(image|include)\} (\S+)$", PAGE, re.MULTILINE)
IMAGES = [DOCS / name for kind, name in NAMED if kind == "image"]

PICTURES = [*sorted({each.name.rpartition("-")[0] for each in IMAGES}), "headline"]
NO_PICTURES = "matplotlib is not installed, so no picture can be drawn"

ALONE = Task("alone", None, None, None)
LINES = PLAIN_ECHO._replace(what="lines")


def run_of(microseconds: Mapping[str, Mapping[Task, float]]) -> Results:
    """A run in which every program needed so many microseconds for each work, a third of it user time."""
    results = Results()
    for program, works in microseconds.items():
        for number, (work, each) in enumerate(works.items()):
            name = f"{program}: {number}"
            results.doers[name] = Doer(program, work)
            results.readings[name] = [
                Reading(1000, each * factor / 1e3, each * factor / 3e3, each * factor / 1.5e3, 4096)
                for factor in (1.0, 0.5, 2.0)
            ]
    return results


def saved(results: Results, rows: list[Row], directory: Path) -> Saved:
    file = directory / "results.json"
    write_json(file, rows, results, circumstances(3, 1.0))
    return read(file, rows)


def grown() -> Results:
    sizes = [PLAIN_ECHO._replace(bytes=size) for size in (16, 64, 65536)]
    counts = [PLAIN_ECHO._replace(connections=count) for count in (1, 4096)]
    works = dict.fromkeys([*sizes, *counts, LINES, LINES._replace(outstanding=32)], 10.0)
    works[PLAIN_ECHO._replace(tls=True)] = 20.0
    return run_of(
        {"wireline asyncio": works, "wireline uvloop": works, "C epoll": works, "asyncio streams": works}
    )


# ----------------------------------------------------------------------------------- the files of the repository


@pytest.mark.parametrize("name", PAGES)
def test_the_page_includes_every_part_and_the_saved_run_fills_it(name: str) -> None:
    assert ("include", f"_static/benchmarks/{name}") in NAMED
    assert len(PAGES[name](read(RESULTS, ROWS)).split()) > 10


@pytest.mark.parametrize("name", PICTURES)
def test_the_saved_run_has_the_numbers_of_every_picture(plots: ModuleType, name: str) -> None:
    assert plots.PICTURES[name](read(RESULTS, ROWS), plots.LOOKS["light"]) is not None


@pytest.mark.parametrize("page", ["benchmarks.md", "index.md"])
def test_a_picture_is_there_for_light_pages_and_for_dark_ones(page: str) -> None:
    shown = re.findall(
        r"benchmarks/([\w-]+)-(light|dark)\.svg\n:alt: (.*)\n(?::\w+: .*\n)*:class: only-(\w+)$",
        (DOCS / page).read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert shown
    assert all(kind == look for _, kind, _, look in shown)
    assert len({(name, words) for name, _, words, _ in shown}) == len(shown) / 2


def test_the_prose_of_the_page_has_no_figure_that_grows_old() -> None:
    assert re.findall(r"\d[\d.]*(?:x\b| ?[kµ]\b| ?%| times)", PAGE) == []


# ---------------------------------------------------------------------------------------------- where we lose


def lost(found: Saved) -> str:
    return PAGES["losses.inc"](found)


def test_the_fastest_is_named(tmp_path: Path) -> None:
    results = run_of(
        {"wireline asyncio": {LINES: 10.0}, "asyncio streams": {LINES: 9.0}, "trio": {LINES: 20.0}}
    )
    rows: list[Row] = [
        RateRow("slower", "wireline asyncio: 0", "asyncio streams: 0", 0.5),
        RateRow("short", "wireline asyncio: 0", "trio: 0", 3.0),
        RateRow("good", "wireline asyncio: 0", "trio: 0", 1.5),
    ]
    text = lost(saved(results, rows, tmp_path))
    behind, short = text.split("Not behind, but short of the target (1):")
    assert "| slower | asyncio streams: 0 | **0.90x** |" in behind
    assert "reached" in behind
    assert "| short | trio: 0 | **2.00x** |" in short
    assert "missed" in short
    assert "good" not in text


def test_of_memory_less_is_better(tmp_path: Path) -> None:
    results = run_of({"wireline asyncio": {LINES: 1.0}, "trio": {LINES: 1.0}})
    results.readings["wireline asyncio: 0"] = [
        each._replace(memory=8192) for each in results.readings["trio: 0"]
    ]
    rows: list[Row] = [
        MemoryRow("more", "wireline asyncio: 0", "trio: 0"),
        MemoryRow("less", "trio: 0", "wireline asyncio: 0"),
    ]
    text = lost(saved(results, rows, tmp_path))
    assert "| more | trio: 0 | **2.00x** |" in text
    assert "less" not in text


def test_callbacks_and_c_are_named_by_program_and_ours_against_ours_apart(tmp_path: Path) -> None:
    works = {LINES: 5.0, PLAIN_ECHO: 4.0}
    others = {"uvloop Protocol": works, "C epoll": works, "wireline asyncio": works}
    results = run_of({"wireline uvloop": {LINES: 10.0}, **others})
    rows: list[Row] = [
        RateRow(f"async {what}: uvloop / {program}", "wireline uvloop: 0", f"{program}: {number}")
        for program in others
        for number, what in enumerate(("lines", "echo"))
    ]
    text = lost(saved(results, rows, tmp_path))
    assert "- **uvloop Protocol**: lines 0.50x, echo 0.40x\n- **C epoll**: lines 0.50x, echo 0.40x\n" in text
    assert "Behind another way of doing it that this library has (2):" in text
    assert "No other of the same kind is ahead." in text


def test_a_loss_of_less_than_is_shown_is_none_and_nothing_lost_is_said(tmp_path: Path) -> None:
    results = run_of({"wireline asyncio": {LINES: 10.01, ALONE: 1.0}, "trio": {LINES: 10.0}})
    rows: list[Row] = [
        RateRow("even", "wireline asyncio: 0", "trio: 0"),
        DurationRow("quick", "wireline asyncio: 1", 1000),
    ]
    found = saved(results, rows, tmp_path)
    expected = "No other of the same kind is ahead.\n\nNo other row is short of its target.\n"
    assert lost(found) == expected
    assert "| quick |  | **0 ms** |" in PAGES["table.inc"](found)


# ------------------------------------------------------------------------------------------------ the other parts


def test_contestants_are_sorted_by_their_cost(tmp_path: Path) -> None:
    found = saved(run_of({"slow": {LINES: 9.0}, "quick": {LINES: 3.0}, "other": {ALONE: 1.0}}), [], tmp_path)
    assert [each.program for each in doing(LINES, found.measured)] == ["quick", "slow"]
    quick = doing(LINES, found.measured)[0]
    assert quick.user == pytest.approx(1e-6)
    assert quick.system == pytest.approx(2e-6)
    assert quick.rate == pytest.approx(1e6 / 3)


def test_growth_is_of_the_plain_echo_and_of_contestants_with_more_than_two_sizes(tmp_path: Path) -> None:
    results = grown()
    results.doers["once"] = Doer("once", PLAIN_ECHO)
    results.readings["once"] = results.readings["C epoll: 0"]
    found = saved(results, [], tmp_path)
    by_size = growing("bytes", found.measured)
    assert {program: list(points) for program, points in by_size.items()} == {
        program: [16, 64, 65536]
        for program in ("wireline asyncio", "wireline uvloop", "C epoll", "asyncio streams")
    }
    text = PAGES["growth.inc"](found)
    assert "| connections | 1 | 64 | 4096 |" in text
    assert "| messages of | 16 B | 64 B | 64 KiB |" in text
    assert "| C epoll | 100 k/s<br>10.00 µs |" in text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_machine_is_described_without_its_name(tmp_path: Path) -> None:
    results = run_of({"trio": {LINES: 1.0}})
    results.left_out |= {"gevent: a": "gevent not installed", "gevent: b": "gevent not installed"}
    results.failures["anyio: lines"] = "piece 3 is wrong"
    results.remarks["trio: 0"] = "fewer connections"
    facts = circumstances(3, 0.5)
    facts["platform"] = "Linux-6.1.2-secret-x86_64-with-glibc2.36"
    facts["cpus"], facts["contestant_core"], facts["load_core"] = 7, 1, 0
    file = tmp_path / "results.json"
    write_json(file, [], results, facts)
    text = PAGES["machine.inc"](read(file, []))
    for said in (
        f"{facts['python']}, Linux 6.1.2, x86_64, 7 processors, contestants on processor 1, loads on 0, ",
        "3 rounds, 0.5 times the usual work",
        "Left out: gevent (gevent not installed).",
        "Failed: anyio: lines (piece 3 is wrong).",
        "Note: trio: 0 (fewer connections).",
    ):
        assert said in text
    assert "secret" not in text


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_the_parts_without_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_publish, "absent", lambda modules: f"{modules[0]} not installed")
    saved(grown(), [], tmp_path)
    row = DurationRow("row", "absent", 1.0)
    code = main(["--from", str(tmp_path / "results.json"), "--plots", str(tmp_path / "new")], [], [row])
    shown = capsys.readouterr()
    assert (code, shown.out, shown.err) == (0, "left out: pictures: matplotlib not installed\n", "")
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == sorted(PAGES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plots", "there"], "--plots DIR needs --json FILE or --from FILE"),
        (["--from", "old.json"], "--from FILE needs --plots DIR"),
        (["--from", "old.json", "--plots", "there"], "--from old.json: not what --json writes"),
        (["--from", "none.json", "--plots", "there"], "--from none.json: "),
        (["--from", "not.json", "--plots", "there"], "--from not.json: "),
    ],
)
def test_the_command_says_what_is_wrong_with_its_words(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.json").write_text(json.dumps({"contestants": {"a": []}, "rows": {}}), encoding="utf-8")
    Path("not.json").write_text("hello", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(words, [], [DurationRow("row", "absent", 1.0)])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not Path("there").exists()


# ----------------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The drawing code, which has drawn once, so that its fonts are open, as they stay."""
    pytest.importorskip("matplotlib", reason=NO_PICTURES)
    module = importlib.import_module("benchmarks._plots")
    directory = tmp_path_factory.mktemp("first")
    module.draw_all(
        saved(run_of({"wireline asyncio": {LINES: 1.0}, "trio": {LINES: 2.0}}), [], directory), directory
    )
    return module


@pytest.mark.parametrize("kind", ["light", "dark"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_names_every_contestant(plots: ModuleType, name: str, kind: str, tmp_path: Path) -> None:
    figure = plots.PICTURES[name](saved(grown(), [], tmp_path), plots.LOOKS[kind])
    said = {each.get_text() for each in figure.findobj(lambda part: hasattr(part, "get_text"))}
    assert {"wireline asyncio", "wireline uvloop", "asyncio streams", "C epoll, the limit"} <= said


def test_the_page_has_all_pictures(plots: ModuleType) -> None:
    assert sorted(plots.PICTURES) == sorted(PICTURES)


def test_the_same_numbers_give_the_same_files_which_name_their_source(
    plots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "PICTURES", {"cpu-echo": plots.PICTURES["cpu-echo"]})
    found = saved(grown(), [], tmp_path)
    for turn in ("first", "second"):
        assert plots.draw_all(found, tmp_path / turn) == []
    files = {each.name: each.read_bytes() for each in (tmp_path / "first").iterdir()}
    assert sorted(files) == ["cpu-echo-dark.svg", "cpu-echo-light.svg"]
    assert len(set(files.values())) == 2
    for name, drawing in files.items():
        assert drawing == (tmp_path / "second" / name).read_bytes()
        assert found.fingerprint.encode() in drawing


def test_a_missing_measurement_is_not_drawn_and_is_named(
    plots: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(run_of({"trio": {LINES: 1.0}}), [], tmp_path)
    publish(tmp_path / "results.json", [], tmp_path / "new")
    missing = [name for name in plots.PICTURES if name != "cpu-lines"]
    assert capsys.readouterr().out == f"left out: {', '.join(missing)}: nothing was measured for them\n"
    assert len([*(tmp_path / "new").glob("*.svg")]) == 2


def test_growth_is_drawn_without_the_program_in_c_too(plots: ModuleType, tmp_path: Path) -> None:
    results = grown()
    results.readings = {name: each for name, each in results.readings.items() if "epoll" not in name}
    found = saved(results, [], tmp_path)
    assert len(plots.rate_by_size(found, plots.LOOKS["light"]).axes) == 1


def test_a_contestant_without_a_size_of_the_limit_is_no_part_of_it(plots: ModuleType, tmp_path: Path) -> None:
    results = grown()
    for name, doer in results.doers.items():
        if doer.program == "C epoll":
            results.doers[name] = doer._replace(work=doer.work._replace(bytes=3 * (doer.work.bytes or 0)))
    above, below = plots.rate_by_size(saved(results, [], tmp_path), plots.LOOKS["light"]).axes
    assert len(above.texts) == 2 + 4  # two lines of heading
    assert [each.get_text() for each in below.texts[2:]] == ["C epoll, the limit"]


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=9))
def test_names_beside_lines_never_cover_each_other(plots: ModuleType, heights: dict[str, float]) -> None:
    from benchmarks._drawing import _apart

    placed = _apart(heights, 0.05)
    assert placed.keys() == heights.keys()
    order = sorted(placed, key=lambda name: placed[name])
    assert [heights[name] for name in order] == sorted(heights.values())
    places = [placed[name] for name in order]
    assert all(above - below >= 0.05 - 1e-9 for below, above in itertools.pairwise(places))
