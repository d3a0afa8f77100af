"""``tools/mutants.py`` makes the changes that it should, and tells which suite notices them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cases import in_turn
from tools import mutants
from tools.mutants import Map, Mutant

TOY = '''\
"""A module."""

LIMIT = 3


def clamp(n: int, wrap: bool = False) -> int:
    """Return ``n``, at most the limit."""
    if n > LIMIT:  # and nothing else
        return LIMIT
    return n
'''
FILE = "src/wireline/_core/toy.py"


def changes(text: str) -> set[str]:
    """The text of a statement, in every mutant of it."""
    source = text.encode()
    return {mutant.applied(source).decode() for mutant in mutants.Maker("toy.py", source).found}


@in_turn(
    "text, expected",
    [
        ("a == b != c", {"a != b != c", "a == b == c", "pass"}),
        ("(a) not in b", {"(a) in b", "pass"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = a is not (\n  # and\n  b)", {"x = a is (\n  # and\n  b)"}),
        ("x = [a + b, c // d]", {"x = [a - b, c // d]", "x = [a + b, c * d]"}),
        ("x = not a", {"x = (a)"}),
        ("self.x = True", {"self.x = False", "pass"}),
        ("x = 5, b'a'", {"x = (5 + 1), b'a'", "x = 5, b'aX'"}),
        ("x = 'a' + f'{b + 1}'", set()),
        ("x = a if b else c", {"x = a if (not (b)) else c"}),
        ("while a():\n  break", {"while (not (a())):\n  break", "while a():\n  continue"}),
        ("def f(a: int = 1) -> None:\n  'doc'\n  return a", {
            "def f(a: int = (1 + 1)) -> None:\n  'doc'\n  return a",
            "def f(a: int = 1) -> None:\n  'doc'\n  return None",
        }),
        ("a += 1", {"a += (1 + 1)", "pass"}),
        ("raise a(b)", {"pass"}),
        ("x: Literal[1] = y", set()),
        ("class A(Protocol):\n  x = 1", set()),
        ("assert a == 1", set()),
        ("x = 'ä' == a", {"x = 'ä' != a"}),
    ],
)  # fmt: skip
def test_every_kind_of_change(text: str, expected: set[str]) -> None:
    assert changes(text) == expected


def test_the_mutants_of_the_source_are_the_same_each_time() -> None:
    found = mutants.mutants_of(mutants.ROOT)
    assert len({mutant.key for mutant in found}) == len(found) > 2000
    assert {mutant.file.split("/")[2] for mutant in found} == {"_core", "net", "asyncnet", "tls"}
    chosen = mutants.choose(found, 30, seed=1)
    assert chosen == mutants.choose(found, 40, seed=1)[:30]
    assert len(set(chosen)) == 30
    assert chosen != mutants.choose(found, 30, seed=2)


def test_a_change_that_cannot_be_compiled_is_no_mutant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    good, bad = (Mutant("a.py", 1, "constant", 4, 5, text) for text in ("2", "("))
    assert mutants.choose([bad, good, bad], 3, seed=1) == [good]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A tree with one module, a test of the sample, and one that only the full suite has."""
    for directory in ("src/wireline/_core", "tests"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "src/wireline/__init__.py").write_text("")
    (tmp_path / "src/wireline/_core/__init__.py").write_text("")
    (tmp_path / FILE).write_text(TOY)
    (tmp_path / "tests/test_toy.py").write_text(
        "from wireline._core.toy import clamp\n"
        "def test_large(): assert clamp(5) == 3\n"
        "def test_small(): assert clamp(2) == 2\n"
    )
    return tmp_path


@pytest.mark.stress
def test_which_suite_notices_a_mutant(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # The toy is no part of the coverage of `wireline`, which the runs of pytest in its tree would report.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    found = {mutant.text: mutant for mutant in mutants.Maker(FILE, TOY.encode()).found}
    assert found.keys() == {"(3 + 1)", "True", ">=", "return None"}
    both = ["tests/test_toy.py::test_large", "tests/test_toy.py::test_small"]
    known = Map(both, {0}, {FILE: {3: [], 8: [0, 1], 9: [0], 10: [1]}})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_timeout"]

    def outcome(mutant: Mutant) -> tuple[object, ...]:
        tried = mutants.try_mutant(toy, mutant, known, command)
        return tried["status"], tried["suite"], tried["test"]

    assert outcome(found["(3 + 1)"]) == ("killed", "sample", both[0])
    assert outcome(found["return None"]) == ("killed", "all", both[1])
    assert outcome(found[">="]) == ("survived", "", "")
    assert (toy / FILE).read_text() == TOY


def test_the_outcome_of_a_run_of_pytest() -> None:
    assert mutants.ending(0, "") == ("passed", "")
    assert mutants.ending(1, "...\nFAILED tests/a.py::b[c] - assert 1\n") == ("failed", "tests/a.py::b[c]")
    assert mutants.ending(-11, "") == ("failed", "")
    assert mutants.ending(1, "+++++++ Timeout +++++++") == ("timeout", "")
    assert mutants.ending(mutants.TIMED_OUT, "") == ("timeout", "")
    with pytest.raises(RuntimeError, match="cannot run"):
        mutants.ending(5, "no tests ran")


def test_tests_are_taken_in_turn_from_each_file() -> None:
    assert mutants.spread(["a::1", "a::2", "b::1", "a::3", "b::2"]) == [
        "a::1",
        "b::1",
        "a::2",
        "b::2",
        "a::3",
    ]
