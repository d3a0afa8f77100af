"""The catalogue of messages has each text of the source, and the source has each text of the catalogue."""

from __future__ import annotations

import ast
import json

import pytest

from tools import messages
from tools.messages import Text

RENEW = "run `make messages`, and say in tools/messages.toml what to do where a text does not"


def test_the_page_has_each_message_of_the_source_and_no_other() -> None:
    assert messages.main(["--check"]) == 0, RENEW


def test_each_message_says_what_to_do() -> None:
    assert messages.unexplained() == [], RENEW


def test_no_note_is_about_a_text_that_is_gone() -> None:
    assert messages.stale() == [], "remove them from tools/messages.toml"


def test_each_message_was_printed_by_a_test() -> None:
    """But for those of which tools/messages.toml says why not."""
    assert messages.unprinted() == [], RENEW


def test_each_message_that_ends_the_command_has_an_exit_code() -> None:
    printed = json.loads(messages.PRINTED.read_text(encoding="utf-8"))
    assert printed[
        "PEER refused the connection: nothing listens there; check the address, or start the server first"
    ]["codes"] == [3]
    assert printed["--show-code shows the program for one target"]["codes"] == [2]
    assert printed["cannot use TLS: REASON"]["codes"] == [1]
    usage = [text.template for text in messages.texts() if text.section == "Wrong usage"]
    assert [each for each in usage if each in printed and set(printed[each]["codes"]) - {1, 2, 3}] == []


SAMPLE = '''
"""A docstring with words."""

ABOUT = """Help with words."""
_TABLE = {1: "{subject} is {reason!r} here; do something", 2: "two"}


def fail(parser, path, count, options):
    """Another docstring."""
    parser.error(f"--thing {path}: there are {len(path)} of {options.target.host!r}, {count:d} at most")
    parser.add_argument("--thing", help="help with words", type=int)
    raise OSError(count, f"cannot do it to {'the first one' if count else 'no other one'}")
'''


def found_in(source: str, file: str) -> list[str]:
    return [template for template, _ in messages.texts_of(ast.parse(source), file)]


def test_the_texts_of_a_file_are_its_strings_without_help_and_docstrings() -> None:
    assert found_in(SAMPLE, "cli/parser/x.py") == [
        "PEER is REASON here; do something",
        "--thing FILE: there are N of 'HOST', COUNT at most",
        "cannot do it to ...",
        "the first one",
        "no other one",
    ]
    assert "help with words" in found_in(SAMPLE, "cli/_connect.py"), "only the parsers have help"


def test_a_text_is_found_in_what_was_printed() -> None:
    ((template, pattern),) = messages.texts_of(ast.parse('f"cannot do {it} with [{path}]; stop"'), "cli/x.py")
    text = Text(template, messages.re.compile(pattern), "")
    printed = [
        {"line": "the long one: cannot do this with [/x]; stop", "code": 0},
        {"line": "cannot do this with [/x]; stop", "code": 4},
        {"line": "cannot do this", "code": 5},
    ]
    assert messages.summarized(text, printed) == {"codes": [4], "example": "cannot do this with [/x]; stop"}
    assert messages.summarized(text, printed[2:]) is None


def test_some_tests_add_to_what_all_have_printed() -> None:
    before, now = {"codes": [1, 5], "example": "long one"}, {"codes": [3], "example": "short"}
    assert messages.merged(before, now) == {"codes": [1, 3, 5], "example": "short"}
    assert messages.merged(now, before) == messages.merged(before, now)


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("127.0.0.1:43211 refused", "127.0.0.1:9000 refused"),
        ("/tmp/pytest-of-me/pytest-1/test_it0/key.pem: no", "key.pem: no"),
        ("'/tmp/pytest-of-me/pytest-1/test_it0/our key.pem'", "'our key.pem'"),
        ("expired on 2026-11-27", "expired on 2026-01-31"),
    ],
)
def test_an_example_has_nothing_that_differs_at_each_run(line: str, masked: str) -> None:
    assert messages.masked(line) == masked
