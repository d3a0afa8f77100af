"""``in_turn`` makes one test of many values: it leaves none out, and says which one failed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases import few_in_sample, in_turn


def notes_of(test: Callable[..., None]) -> list[str]:
    """The notes on the error of a test that fails."""
    with pytest.raises(AssertionError) as caught:
        test()
    return caught.value.__notes__


def test_every_value_is_seen_and_a_failure_says_which() -> None:
    seen: list[tuple[int, str]] = []

    @in_turn("letter", ["a", "b"])
    @in_turn("number, text", [(1, "one"), (2, "two"), (3, "three")])
    def check(letter: str, number: int, text: str) -> None:
        seen.append((number, letter))
        assert (letter, number) != ("b", 2)
        assert text

    assert notes_of(check) == ["value 2 of 3: number, text = (2, 'two')", "value 2 of 2: letter = 'b'"]
    assert seen == [(1, "a"), (2, "a"), (3, "a"), (1, "b"), (2, "b")]


def test_a_tuple_is_the_value_of_one_name() -> None:
    @in_turn("pair", [(1, 2)])
    def check(pair: tuple[int, int]) -> None:
        assert pair == (1, 3)

    assert notes_of(check) == ["value 1 of 1: pair = (1, 2)"]


def test_a_long_value_is_cut() -> None:
    @in_turn("data", [b"x" * 10_000])
    def check(data: bytes) -> None:
        assert not data

    assert len(notes_of(check)[0]) < 600


def test_values_of_another_number_than_the_names_are_an_error() -> None:
    @in_turn("one, two", [(1, 2), (1,)])
    def check(one: int, two: int) -> None:
        assert (one, two) == (1, 2)

    with pytest.raises(ValueError, match="shorter"):
        check()


def test_a_skipped_value_does_not_hide_the_next() -> None:
    @in_turn("number", [1, 2])
    def check(number: int) -> None:
        if number == 1:
            pytest.skip("not here")
        assert number == 3

    assert notes_of(check) == ["value 2 of 2: number = 2"]


def test_a_test_of_which_every_value_is_skipped_is_skipped() -> None:
    @in_turn("number", [1, 2])
    def check(number: int) -> None:
        pytest.skip(f"not {number}")

    with pytest.raises(pytest.skip.Exception, match="not 1"):
        check()


def test_a_coroutine_function_is_refused() -> None:
    async def check(number: int) -> None:
        raise AssertionError(number)

    with pytest.raises(TypeError, match="check is a coroutine function"):
        in_turn("number", [1])(check)  # type: ignore[arg-type]


@in_turn("number", [1, 2])
def test_each_value_has_fresh_fixtures(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert capsys.readouterr().out == ""
    assert "WIRELINE_OF_A_VALUE" not in os.environ
    monkeypatch.setenv("WIRELINE_OF_A_VALUE", str(number))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    print(number)


def test_values_that_are_not_in_the_sample_have_the_full_mark() -> None:
    one, two, three = few_in_sample("abc", "b")
    assert two == "b"
    assert [each.values for each in (one, three)] == [("a",), ("c",)]
    assert {mark.name for each in (one, three) for mark in each.marks} == {"full"}
    with pytest.raises(ValueError, match="not of the values: \\['d'\\]"):
        few_in_sample("abc", "a", "d")


class TestOfAClass:
    @in_turn("number", [1, 2])
    @pytest.mark.parametrize("other", [3, 4])
    def test_marks_and_self_are_kept(self, number: int, other: int, tmp_path: Path) -> None:
        assert isinstance(self, TestOfAClass)
        assert number < other
        assert tmp_path.name == str(number)
