"""The counts of ``tools/house.py`` are right, and it fails above a limit."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator

import pytest

from tests.cases import in_turn
from tools import house
from tools.house import Measure


def function(text: str) -> house.Function:
    node = ast.parse(text).body[0]
    assert isinstance(node, house.Function)
    return node


@in_turn(
    "body, count",
    [
        ("pass", 0),
        ("if a: pass\n elif b: pass\n else: pass", 2),
        ("return a and b and c or d", 3),
        ("return a if b else c", 1),
        ("while a:\n  for b in c: pass", 2),
        ("try: a\n except B: pass\n except C: pass\n finally: pass", 2),
        ("return [a for b in c if d]", 2),
        ("return {a: b for c in d for e in f}", 2),
        ("match a:\n  case 1: pass\n  case _: pass", 2),
        ("async for a in b: pass", 1),
        ("def g():\n  if a: pass", 0),
        ("g = lambda: a or b", 1),
    ],
)
def test_branches(body: str, count: int) -> None:
    assert house.branches(function(f"async def f():\n {body}")) == count


def test_the_lines_of_a_function_are_those_below_its_docstring() -> None:
    assert (
        house.body_lines(function('def f(\n a,\n b,\n):\n """One.\n\n Two.\n """\n # why\n a()\n\n b()\n'))
        == 4
    )
    assert house.body_lines(function("def f(): return 1")) == 1


@in_turn(
    "text, is_hook",
    [
        ("def f(): raise NotImplementedError", True),
        ("def f():\n 'Doc.'\n raise NotImplementedError('here')", True),
        ("@abstractmethod\ndef f(): ...", True),
        ("def f(): raise TypeError('cannot be pickled')", False),
        ("def f():\n a()\n raise NotImplementedError", False),
        ("def f(): raise", False),
    ],
)
def test_hooks(text: str, is_hook: bool) -> None:
    assert house.only_raises(function(text)) is is_hook


def test_the_names_that_a_file_defines_and_those_that_it_reaches() -> None:
    trees = {
        "a.py": ast.parse(
            "class A:\n __slots__ = ('_x',)\n def f(self, b): self._y, b._x, b._y, b.__dict__, b.c"
        ),
        "b.py": ast.parse("def f(a, b): a._x, b._x, self._z, os._exit, b._replace()"),
        "c.py": ast.parse("from wireline._core.stream import _secret\nfrom wireline import _core"),
    }
    assert house.reached(trees) == {"_x": {"b.py"}, "_y": {"a.py"}, "_secret": {"c.py"}}


def test_an_attribute_needs_a_reason_and_a_reason_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "REACHED", {"_a": "why", "_gone": "why"})
    monkeypatch.setattr(house, "FOREIGN", {"_f": "why", "a.py: _g": "why", "_away": "why"})
    found = {"_a": {"a.py"}, "_b": {"a.py", "b.py"}, "_f": {"a.py"}, "_g": {"x/a.py", "b.py"}}
    counted = [measure.counted for measure in house.of_attributes(found)]
    assert counted == [
        ["_a: a.py", "_b: a.py, b.py", "_g: b.py"],
        ["_b: a.py, b.py", "_g: b.py"],
        ["_gone", "_away"],
    ]


class Upper:
    __slots__ = ("_a",)

    def _b(self) -> None:
        self._c = self._d = 1

    def public(self) -> None: ...


class Lower(Upper):
    _b = None  # type: ignore[assignment]


Upper.__module__ = Lower.__module__ = "wireline"


def test_a_private_name_counts_once_over_all_classes() -> None:
    assert list(house.of_a_socket(Lower)) == [
        Measure("classes of Lower", 2, ["Lower", "Upper"]),
        Measure("private names on Lower", 4, ["_a", "_b", "_c", "_d"]),
    ]


@in_turn(
    "value, today, passes, remark",
    [
        (2, None, True, ""),
        (3, None, False, "above the limit of 2"),
        (6, 6, True, "limit 2"),
        (7, 6, False, "worse than 6"),
        (5, 6, True, "better than 6"),
        (2, 6, True, "remove it"),
    ],
)
def test_a_limit_that_is_not_met_yet_does_not_rise(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: int,
    today: int | None,
    passes: bool,
    remark: str,
) -> None:
    monkeypatch.setattr(house, "NOT_YET", {} if today is None else {"classes of Socket": today})

    def taken() -> Iterator[Measure]:
        yield Measure("classes of Socket", value, ["counted"])

    assert house.main([], taken) == (0 if passes else 1)
    printed = capsys.readouterr().out
    assert remark in printed
    assert ("counted" in printed) is not passes


@in_turn("kind", ["tcp", "tls"])
def test_the_files_of_a_line(kind: str) -> None:
    assert any(file.startswith("net/") for file in house.blocking_line(kind))
    files = asyncio.run(house.async_line(kind))
    assert any(file.startswith("asyncnet/") for file in files)
    assert not any(file.startswith("net/") for file in files)
    assert any("tls" in file for file in files) is (kind == "tls")
