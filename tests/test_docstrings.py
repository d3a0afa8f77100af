"""Every public name has a docstring, whose arguments are those of the signature."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import NamedTuple

from wireline import net
from wireline.net import Server, Socket

MODULES = ("wireline", "wireline.net", "wireline.asyncnet", "wireline.tls", "wireline.testing")

# Words with which an imperative sentence does not begin.
_NOT_IMPERATIVE = frozenset("This That These It There You We Method Function Helper".split())
_ARTICLES = frozenset("A An The".split())


class Documented(NamedTuple):
    """A public name and the source of its text."""

    name: str
    subject: object
    text: str | None


def _public_names() -> Iterator[Documented]:
    for path in MODULES:
        module = importlib.import_module(path)
        for name in module.__all__:
            subject = getattr(module, name)
            if inspect.isclass(subject):
                yield Documented(f"{path}.{name}", subject, subject.__doc__)
                yield from _members(f"{path}.{name}", subject)
            elif inspect.isfunction(subject):
                yield Documented(f"{path}.{name}", subject, subject.__doc__)


def _members(prefix: str, subject: type) -> Iterator[Documented]:
    """The public methods and properties of a class, with those that it inherits from a class of the library."""
    found: dict[str, object] = {}
    for base in reversed(subject.__mro__):
        if base.__module__.startswith("wireline"):
            found.update(vars(base))
    for name, member in found.items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if not name.startswith("_") and (isinstance(plain, property) or inspect.isfunction(plain)):
            yield Documented(f"{prefix}.{name}", plain, plain.__doc__)


def _parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


PUBLIC = list(_public_names())
FUNCTIONS = [each for each in PUBLIC if inspect.isfunction(each.subject)]


def test_the_public_names_are_found() -> None:
    """So that the tests below are about something."""
    names = {each.name for each in PUBLIC}
    assert {
        "wireline.parse_target",
        "wireline.Target",
        "wireline.SockOpt.to_int",
        "wireline.net.dial",
        "wireline.net.Server.connections",
        "wireline.net.Socket.recv_line",
        "wireline.net.Socket.from_fd",
        "wireline.net.Socket.is_closed",
    } <= names


def test_every_public_name_has_a_docstring_that_begins_with_a_sentence() -> None:
    """Its first line, right after the quotes, is one sentence."""
    first = {each.name: (each.text or "").split("\n")[0] for each in PUBLIC}
    assert {name: line for name, line in first.items() if not re.fullmatch(r"[A-Z`](.*\S)?\.", line)} == {}


def test_a_function_says_what_to_do_and_not_what_it_does() -> None:
    found = {each.name: (each.text or "-").split()[0] for each in FUNCTIONS}
    assert {name: word for name, word in found.items() if word in _NOT_IMPERATIVE} == {}
    third_person = {name: word for name, word in found.items() if re.search(r"[^s]s$", word)}
    assert third_person == {}
    # A function without arguments is asked like a property, and may be described like one.
    asked = {each.name for each in FUNCTIONS if not _parameters(each.subject)}
    assert {name: word for name, word in found.items() if word in _ARTICLES and name not in asked} == {}


# Methods that wait: the text is the same in both flavours (``test_twins.py``).


def _own(kind: type) -> dict[str, object]:
    """The attributes of a class that are defined in the modules of its flavour."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith(kind.__module__):
            found.update(vars(base))
    return found


WAITING = [
    (name, member)
    for kind in (Socket, Server)
    for name, member in _own(kind).items()
    if not name.startswith("_")
] + [(name, getattr(net, name)) for name in ("dial", "serve")]


def test_a_docstring_names_every_argument_in_its_order() -> None:
    for name, member in WAITING:
        text = inspect.getdoc(member) or ""
        section = re.search(r"^Args:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
        said = re.findall(r"^    (\w+): ", section[1], re.MULTILINE) if section else []
        assert (name, said) == (name, [] if isinstance(member, property) else _parameters(member))


def test_a_method_that_waits_says_what_a_timeout_or_a_cancellation_leaves_behind() -> None:
    for name, member in WAITING:
        words = " ".join((member.__doc__ or "").split())
        never_waits = name == "request_stop"
        if inspect.isfunction(member) and {"timeout", "drain"} & set(_parameters(member)) and not never_waits:
            assert "cancellation" in words, name
            if name != "stop":
                assert re.search(r"timeout or a cancellation", words), name
                assert "SocketTimeout:" in words, name
