"""The two flavours are twins: the same names, parameters, defaults and words; calls that wait are awaited in one."""

from __future__ import annotations

import inspect
import re

from tests.cases import in_turn
from wireline import asyncnet, net
from wireline.net import Pool, Server, Socket, StopEvent

# The differences, and their reasons.
BLOCKING_ONLY = {
    "__iand__": "`sock &= data` cannot be awaited",
    "__enter__": "`with`; the other has `async with`",
    "__exit__": "`with`; the other has `async with`",
}
ASYNC_ONLY = {
    "__aenter__": "`async with`; the other has `with`",
    "__aexit__": "`async with`; the other has `with`",
}
DOORS_DIFFER = {
    "Socket": "AsyncSocket",
    "": "StartingServer",  # the result of `serve`: awaited, or entered with `async with`
}
RETURNS_DIFFER = {
    "Socket": "AsyncSocket",
    "Iterator": "AsyncIterator",
    "AbstractContextManager": "AbstractAsyncContextManager",
    "Server": "StartingServer",  # as above
}
BRIDGES = {"as_socket"}, {"as_streams", "as_transport"}
"""To the interfaces of other libraries, which have no twin."""
NEVER_WAIT = frozenset(
    "try_accept_addr try_recv try_recv_line try_send try_send_some lines frames consume unread close"
    " request_stop acquire is_set".split()
)
"""The methods that are plain in both flavours. ``lines`` and ``frames`` return an iterator, ``acquire`` is entered."""


def _own(kind: type) -> dict[str, object]:
    """The attributes of the class from the modules of its flavour, in the order of their definition."""
    found: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith((net.__name__, asyncnet.__name__)):
            for name, member in vars(base).items():
                found.pop(name, None)  # an annotation without a value does not count
                found[name] = member
    return found


def _public(kind: type) -> list[str]:
    return [name for name in _own(kind) if not name.startswith("_")]


def _parameters(function: object) -> list[tuple[str, object, object, object]]:
    assert callable(function)
    return [
        (p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()
    ]


def _returned(function: object) -> str:
    """The return type of a function, in words of the async flavour."""
    assert callable(function)
    words = str(inspect.signature(function).return_annotation)
    for ours, theirs in RETURNS_DIFFER.items():
        words = re.sub(rf"\b{ours}\b", theirs, words)
    return words


PAIRS = [
    (Socket, asyncnet.AsyncSocket),
    (Server, asyncnet.Server),
    (StopEvent, asyncnet.StopEvent),
    (Pool, asyncnet.Pool),
]
METHODS = [
    (
        f"{ours.__name__}.{name}",
        inspect.getattr_static(ours, name),
        inspect.getattr_static(theirs, name, None),
    )
    for ours, theirs in PAIRS
    for name in _public(ours)
]


def test_the_modules_have_the_same_names() -> None:
    ours, theirs = BRIDGES
    translated = {DOORS_DIFFER.get(name, name) for name in net.__all__} - ours
    assert translated | {DOORS_DIFFER[""]} == set(asyncnet.__all__) - theirs


@in_turn("ours, theirs", PAIRS)
def test_the_classes_have_the_same_public_names_in_the_same_order(ours: type, theirs: type) -> None:
    assert _public(ours) == _public(theirs)


def test_methods_that_never_wait_are_the_same_functions() -> None:
    elsewhere = [
        {name: member for name, member in inspect.getmembers_static(kind) if not name.startswith("_")}
        for kind in (Socket, asyncnet.AsyncSocket)
    ]
    assert list(elsewhere[0]) == list(elsewhere[1])
    for name, member in elsewhere[0].items():
        if name not in _public(Socket):
            assert member is elsewhere[1][name], f"{name} is in both flavours, and not in the base"


@in_turn("ours, theirs", PAIRS)
def test_the_special_methods_differ_only_where_it_is_said(ours: type, theirs: type) -> None:
    special = [{name for name in _own(kind) if name[:2] == name[-2:] == "__"} for kind in (ours, theirs)]
    ignored = set(vars(object)) | {"__module__", "__annotations__", "__dict__", "__weakref__"}
    ignored |= {"__firstlineno__", "__static_attributes__"}  # from Python 3.13 on
    assert special[0] - special[1] - ignored <= set(BLOCKING_ONLY)
    assert special[1] - special[0] - ignored <= set(ASYNC_ONLY)


def test_methods_have_the_same_parameters_and_words() -> None:
    for name, one, other in METHODS:
        assert (name, one.__doc__) == (name, other.__doc__)
        assert one.__doc__, name
        if isinstance(one, property):
            assert isinstance(other, property), name
        else:
            assert (name, _parameters(one)) == (name, _parameters(other))
            assert (name, _returned(one)) == (name, str(inspect.signature(other).return_annotation))


def test_methods_that_wait_are_awaited_in_the_async_flavour() -> None:
    methods = [(name, one, other) for name, one, other in METHODS if not isinstance(one, property)]
    assert [name for name, one, _ in methods if inspect.iscoroutinefunction(one)] == []
    plain = {name for name, _, other in methods if not inspect.iscoroutinefunction(other)}
    assert plain == {name for name, *_ in methods if name.partition(".")[2] in NEVER_WAIT}


@in_turn("name", ["dial", "serve"])
def test_the_functions_have_the_same_parameters_and_words(name: str) -> None:
    one, other = getattr(net, name), getattr(asyncnet, name)
    assert [each[:3] for each in _parameters(one)] == [each[:3] for each in _parameters(other)]
    assert _returned(one) == str(inspect.signature(other).return_annotation)
    assert one.__doc__ == other.__doc__
    # The result of `serve` can be awaited and entered, so it is no coroutine function itself.
    assert inspect.iscoroutinefunction(other) is (name == "dial")
