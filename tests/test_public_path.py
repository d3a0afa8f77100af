"""A public name has one path: in imports, tracebacks and pickles, and in editors, with its docstring.

That its page of the reference lists it is checked in ``test_docs.py``.
"""

from __future__ import annotations

import inspect
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import jedi
import pytest

import wireline
from tests.cases import in_turn
from wireline import asyncnet, net, testing, tls

SOURCE = Path(wireline.__file__).parents[1]
MODULES = (wireline, net, asyncnet, tls, testing)

SHARED = {
    ("wireline.asyncnet", "Datagram"): "wireline.net",
    ("wireline.asyncnet", "PoolStats"): "wireline.net",
    ("wireline.asyncnet", "ReceivedFds"): "wireline.net",
    ("wireline.asyncnet", "ReceivedInto"): "wireline.net",
    ("wireline.asyncnet", "ServerStats"): "wireline.net",
    ("wireline.asyncnet", "StopReport"): "wireline.net",
    ("wireline.tls", "AcceptResult"): "wireline",
    ("wireline.tls", "SslError"): "ssl",
}
"""The names that a second module offers, and the path that they have."""


class Public(NamedTuple):
    """A public class or function."""

    module: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        return SHARED.get((self.module, self.name), self.module)


def _find() -> Iterator[Public]:
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type | FunctionType):
                yield Public(module.__name__, name, value)


PUBLIC = list(_find())
OURS = [each for each in PUBLIC if each.path != "ssl"]
every_module = in_turn("module", [module.__name__ for module in MODULES])


def methods(each: Public) -> list[str]:
    """The public methods and properties of a class that are written in this library, by name."""
    if not isinstance(each.value, type):
        return []
    return [
        name
        for base in each.value.__mro__
        if base.__module__.startswith("wireline")
        for name, member in vars(base).items()
        if not name.startswith("_")
        and isinstance(member, FunctionType | property | classmethod | staticmethod)
    ]


def test_the_names_are_found() -> None:
    names = {f"{each.module}.{each.name}" for each in PUBLIC}
    assert {
        "wireline.Target",
        "wireline.net.dial",
        "wireline.asyncnet.Server",
        "wireline.tls.TlsInfo",
    } <= names
    assert {"recv_line", "close", "local_addr", "from_fd"} <= set(methods(Public("", "", net.Socket)))


def test_a_name_has_the_path_that_it_is_imported_by() -> None:
    shown = [f"{each.value.__module__}.{each.value.__qualname__}" for each in PUBLIC]
    assert shown == [f"{each.path}.{each.value.__name__}" for each in PUBLIC]
    assert [each for each in OURS if each.value.__name__ != each.name] == []


def test_a_name_is_pickled_by_its_path() -> None:
    pickled = {each: pickle.dumps(each.value) for each in OURS}
    assert [each for each in OURS if each.path.encode() not in pickled[each]] == []
    assert [each for each in OURS if pickle.loads(pickled[each]) is not each.value] == []


@in_turn(
    "value",
    [
        wireline.SocketTimeout("recv", 2.0),
        wireline.DialError("host:1", ((("127.0.0.1", 1), ConnectionRefusedError(111, "no"), 0.5),)),
        wireline.EndOfStreamError("recv_exactly", b"ab", "3 bytes"),
        wireline.LineTooLongError("recv_line", 10),
        wireline.ClosedError(),
        wireline.BusyError("busy"),
        tls.TruncatedError("cut"),
    ],
)
def test_an_error_is_pickled(value: BaseException) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value)
    assert (str(again), again.args) == (str(value), value.args)
    assert {name: repr(held) for name, held in vars(again).items()} == {
        name: repr(held) for name, held in vars(value).items()
    }


VALUES: list[object] = [
    wireline.Address("host", 1),
    wireline.parse_target("tls://host:443"),
    wireline.SocketFlag.PEEK | wireline.SAFE_DISCONN,
    wireline.SockOpt.NO_DELAY,
    wireline.AcceptResult.SUCCESS,
    wireline.ReadLineResult.NONE,
    wireline.IpAddressFamily.IPV6,
    net.Datagram(b"x", wireline.Address("host", 1)),
    net.ReceivedFds(b"x", [3], 0),
    net.ReceivedInto(1, wireline.Address("host", 1)),
    net.StopReport(1, 2),
    tls.Handshake.AS_CLIENT,
    tls.VerifyMode.PEER,
    tls.Certificate(b"der"),
    testing.Faults(delay=0.2),
    testing.CertificateFiles("ca", "cert", "key"),
]


def test_a_value_is_pickled() -> None:
    for value in VALUES:
        again = pickle.loads(pickle.dumps(value))
        assert type(again) is type(value)
        assert again == value


def test_a_traceback_shows_the_public_path() -> None:
    with pytest.raises(wireline.ClosedError) as caught:
        raise wireline.ClosedError
    assert "wireline.ClosedError: [Errno 9] the socket is closed" in str(caught.getrepr(style="native"))


@in_turn(
    "first, then, name, path",
    [
        ("wireline.asyncnet", "wireline.net", "StopReport", "wireline.net"),
        ("wireline.net", "wireline.asyncnet", "StopReport", "wireline.net"),
        ("wireline.tls", "wireline", "AcceptResult", "wireline"),
    ],
)
def test_a_path_does_not_depend_on_the_order_of_imports(first: str, then: str, name: str, path: str) -> None:
    code = f"import {first} as a; before = a.{name}.__module__; import {then} as b; print(before, b.{name}.__module__)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == [path, path]


def _functions(each: Public) -> Iterator[tuple[str, Any]]:
    """The function, or the functions behind the methods and properties of the class."""
    if isinstance(each.value, FunctionType):
        yield each.name, each.value
    for name in methods(each):
        member = inspect.getattr_static(each.value, name)
        yield (
            name,
            member.fget if isinstance(member, property) else inspect.unwrap(getattr(each.value, name)),
        )


@every_module
def test_the_source_of_functions_and_methods_is_found(module: str) -> None:
    """Not of a class: CPython looks for its text in the file of ``__module__`` (the price in ``_public.py``)."""
    missing = [
        f"{each.name}.{name}"
        for each in OURS
        if each.module == module
        for name, function in _functions(each)
        if not re.search(rf"^ *(?:async )?def {name}\b", inspect.getsource(function), re.MULTILINE)
    ]
    assert missing == []


@every_module
def test_an_editor_shows_the_docstrings(module: str) -> None:
    lines: list[str] = []
    for each in OURS:
        if each.module == module:
            # Of a property that can be set, jedi finds the setter, which has no docstring.
            shown = [
                name
                for name in methods(each)
                if not getattr(inspect.getattr_static(each.value, name), "fset", None)
            ]
            lines += [each.name, *(f"{each.name}.{name}" for name in shown)]
    project = jedi.Project(SOURCE, load_unsafe_extensions=False)
    text = "\n".join([f"from {module} import *", *lines])
    script = jedi.Script(text, project=project, environment=jedi.InterpreterEnvironment())
    unseen = []
    for number, line in enumerate(lines, start=2):
        found = script.goto(number, len(line), follow_imports=True)
        if not any(definition.docstring(raw=True) for definition in found):
            unseen.append(line)
    assert unseen == []
