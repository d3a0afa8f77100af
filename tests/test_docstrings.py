"""Every public name says what it does, and what is said about the arguments is true of the signature."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from wireline import _promises, asyncnet, net
from wireline._base import BaseSocket
from wireline.net import Server, Socket

DOORS = ("wireline", "wireline.net", "wireline.asyncnet", "wireline.tls", "wireline.testing")

# What a sentence that tells somebody to do something does not begin with.
_NOT_IMPERATIVE = frozenset("This That These It There You We Method Function Helper".split())
_ARTICLES = frozenset("A An The".split())


class Documented(NamedTuple):
    """A public name and where its text comes from."""

    name: str
    subject: object
    text: str | None


def _public_names() -> Iterator[Documented]:
    for door in DOORS:
        module = importlib.import_module(door)
        for name in module.__all__:
            subject = getattr(module, name)
            if inspect.isclass(subject):
                yield Documented(f"{door}.{name}", subject, subject.__doc__)
                yield from _members(f"{door}.{name}", subject)
            elif inspect.isfunction(subject):
                yield Documented(f"{door}.{name}", subject, subject.__doc__)


def _members(prefix: str, subject: type) -> Iterator[Documented]:
    """The public methods and properties of a class, those that it inherits from a class of ours included."""
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


@pytest.mark.parametrize("each", PUBLIC, ids=lambda each: each.name)
def test_every_public_name_has_a_docstring_that_begins_with_a_sentence(each: Documented) -> None:
    assert each.text, "no docstring"
    first = each.text.split("\n")[0]
    assert first == first.strip(), "the sentence begins right after the quotes"
    assert re.match(r"[A-Z`]", first), first
    assert first.endswith("."), f"not a sentence on one line: {first!r}"


@pytest.mark.parametrize("each", FUNCTIONS, ids=lambda each: each.name)
def test_a_function_says_what_to_do_and_not_what_it_does(each: Documented) -> None:
    assert each.text is not None
    word = each.text.split()[0]
    assert word not in _NOT_IMPERATIVE, each.text
    assert not re.search(r"[^s]s$", word), f"{word!r} looks like the third person"
    if _parameters(each.subject):  # what is asked like a property may be described like one
        assert word not in _ARTICLES, each.text


# The promises, which both flavours share.


def _own(kind: type) -> dict[str, object]:
    """What a class of a flavour has that comes from that flavour's rooms."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.rpartition(".")[0] == kind.__module__.rpartition(".")[0]:
            found.update(vars(base))
    return found


SHARED = [
    *((name, promise, _own(Socket)) for name, promise in vars(_promises.SocketPromises).items()),
    *((name, promise, _own(Server)) for name, promise in vars(_promises.ServerPromises).items()),
    *((name, getattr(_promises, name), vars(net)) for name in ("dial", "serve")),
]
PROMISES = [
    pytest.param(name, promise, members, id=name)
    for name, promise, members in SHARED
    if not name.startswith("_")
]


@pytest.mark.parametrize(("name", "promise", "members"), PROMISES)
def test_every_promise_is_kept_by_something_of_that_name(
    name: str, promise: Callable[[], None], members: dict[str, object]
) -> None:
    assert name in members, "nothing has this name"
    assert members[name].__doc__ == promise.__doc__


@pytest.mark.parametrize("kind", [Socket, Server, asyncnet.AsyncSocket, asyncnet.Server])
def test_every_public_method_of_a_flavour_has_its_text_from_the_promises(kind: type) -> None:
    promised = _promises.SocketPromises if issubclass(kind, BaseSocket) else _promises.ServerPromises
    own = {name for name in _own(kind) if not name.startswith("_")}
    assert own == {name for name in vars(promised) if not name.startswith("_")}


@pytest.mark.parametrize(("name", "promise", "members"), PROMISES)
def test_a_promise_names_every_argument_in_its_order(
    name: str, promise: Callable[[], None], members: dict[str, object]
) -> None:
    text = inspect.getdoc(promise) or ""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    said = re.findall(r"^    (\w+): ", section[1], re.MULTILINE) if section else []
    assert said == ([] if isinstance(members[name], property) else _parameters(members[name]))


@pytest.mark.parametrize(("name", "promise", "members"), PROMISES)
def test_whatever_waits_says_what_a_timeout_or_a_cancellation_leaves_behind(
    name: str, promise: Callable[[], None], members: dict[str, object]
) -> None:
    words = " ".join((promise.__doc__ or "").split())
    member = members[name]
    never_waits = name == "request_stop"
    if inspect.isfunction(member) and {"timeout", "drain"} & set(_parameters(member)) and not never_waits:
        assert "cancellation" in words
        if name != "stop":
            assert re.search(r"timeout or a cancellation", words)
            assert "SocketTimeout:" in words


def test_documented_leaves_alone_what_has_words_of_its_own() -> None:
    class Promises:
        def there(self) -> None:
            """Promised."""

        def elsewhere(self) -> None:
            """Promised."""

        def own(self) -> None:
            """Promised."""

    @_promises.documented(Promises)
    class Subject:
        """Its own."""

        def there(self) -> None: ...

        def own(self) -> None:
            """Its own."""

    assert (Subject.__doc__, Subject.there.__doc__, Subject.own.__doc__) == (
        "Its own.",
        "Promised.",
        "Its own.",
    )
    assert not hasattr(Subject, "elsewhere")
