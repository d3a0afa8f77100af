"""Measure how hard the source is to enter, and fail above the limits.

    python tools/house.py             print the measures; exit with 1 if one is above its limit
    python tools/house.py --verbose   with what was counted

How each is counted is in the docstring of its function. A limit that is not met yet stands in `NOT_YET` with today's
value, which may fall and not rise. Remove its line when the limit is met.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "wireline"

LIMITS = {
    "classes of Socket": 2,
    "classes of AsyncSocket": 2,
    "private names on Socket": 40,
    "private names on AsyncSocket": 40,
    "hooks that only raise": 0,
    "private attributes reached across files": 10,
    "private attributes reached without a reason": 0,
    "reasons for what is not reached": 0,
    "functions over 14 branches": 0,
    "functions over 60 lines": 0,
    "files of a recv_line: blocking TCP": 4,
    "files of a recv_line: blocking TLS": 6,
    "files of a recv_line: async TCP": 5,
    "files of a recv_line: async TLS": 7,
}

NOT_YET: dict[str, int] = {}
"""Limits that the source does not meet yet, each with the value of today."""

REACHED = {
    "_adopt": "`dial` makes a socket of a descriptor that it has connected, with its state known, for no user to call",
    "_client_core": "`SslContext` is public, and only a socket that connects may make a core of it",
    "_fd": "a server asks which process owns a client, and whether its own listener is busy",
    "_io": "code of both flavours calls the stream of a socket, which must not be a part of the socket's public face",
    "_server_core": "as `_client_core`, for a client that was accepted",
    "_upgrade": "`dial`, `serve` and `SslContext` begin TLS; a user does so by `SslContext.wrap_connected_socket`",
    "_use": "a system call that no method makes (statistics, an option) must hold the descriptor open meanwhile",
    "_wrap": "the second half of `SslContext.wrap_socket`, which is what a user calls",
}
"""The private attributes that another file may reach, each with its reason."""

FOREIGN = {
    "_asyncio_future_blocking": "asyncio's `Task` tells by it what it may wait for, and a `Waiter` is no `Future`",
    "_SubParsersAction": "argparse has no other name for the choice of a command among the arguments of a parser",
    "_group_actions": "argparse tells nowhere else which options exclude each other",
    "_sslobj": "ssl gives the certificates of the peer, and the pointer to its SSL, nowhere else before 3.13",
    "descriptor.py: _accept": "`socket.accept` loses the descriptor if a signal handler raises in it",
    "descriptor.py: _closed": "as `_accept`: the object is made first, and the client put into it",
    "descriptor.py: _io_refs": "as `_closed`",
}
"""The private attributes of the standard library that are reached, each with its reason. They do not count as ours. A
file's name limits an entry to that file."""

MAX_BRANCHES = 14
MAX_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef

DOCUMENTED = {"os._exit", "sys._getframe", "sys._current_frames"}
"""Documented names of the standard library that begin with an underscore."""

NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


class Measure(NamedTuple):
    """A value, and what was counted."""

    name: str
    value: int
    counted: list[str]


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is no special method."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


# ---------------------------------------------------------------------------------------------- the two sockets


def of_a_socket(kind: type) -> Iterator[Measure]:
    """Count the classes of a socket besides ``object``, and the private names of all of them.

    A name counts once: methods, class attributes, slots, and attributes that a method assigns to ``self``.
    """
    classes = [base for base in kind.__mro__ if base is not object]
    yield Measure(f"classes of {kind.__name__}", len(classes), [base.__name__ for base in classes])
    names = {name for base in classes if base.__module__.startswith("wireline") for name in vars(base)}
    for base in classes:
        if base.__module__.startswith("wireline"):
            names |= _assigned_to_self(base)
    private = sorted(filter(is_private, names))
    yield Measure(f"private names on {kind.__name__}", len(private), private)


def _assigned_to_self(kind: type) -> set[str]:
    # By its code and not by `__module__`, which may be set to the public path.
    files = (member.__code__.co_filename for member in vars(kind).values() if hasattr(member, "__code__"))
    file = next(files, None)
    definitions = [
        node
        for node in (ast.walk(ast.parse(Path(file).read_text())) if file else ())
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ]
    return {
        node.attr
        for definition in definitions
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    }


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


# -------------------------------------------------------------------------------------------------- the source


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Find every function with its qualified name, the nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix)


def branches(function: ast.AST) -> int:
    """Count the branches of a function.

    Each ``if``, ``elif``, ``for``, ``while``, ``except``, ``case``, ``and``, ``or`` and conditional expression is one;
    a comprehension is one for each of its ``for`` and ``if``. A nested function counts for itself only.
    """
    count = 0
    for node in ast.iter_child_nodes(function):
        if isinstance(node, Function):
            continue
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        count += isinstance(node, BRANCHES)
        count += branches(node)
    return count


BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)


def body_lines(function: Function) -> int:
    """Count the lines of a function below its signature and its docstring, with comments and blank lines.

    The signature and the docstring of a public method are its documentation: they do not count against it.
    """
    body = function.body
    start = body[0].lineno - 1
    if ast.get_docstring(function, clean=False) is not None:
        start = body[0].end_lineno or start
    return (function.end_lineno or start) - start


def only_raises(function: Function) -> bool:
    """Whether a function is a hook for subclasses: abstract, or nothing but a raise that says "not here"."""
    if any("abstractmethod" in ast.unparse(each) for each in function.decorator_list):
        return True
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if len(body) != 1 or not isinstance(body[0], ast.Raise) or body[0].exc is None:
        return False
    return ast.unparse(body[0].exc).startswith(("NotImplementedError", "AssertionError"))


def reached(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Find the private attributes that a file reaches and does not define: ``Class._name`` or ``module._name`` alike.

    ``self._name`` and ``cls._name`` are inheritance and are counted by the names on a socket. An attribute counts once,
    under its own name, from however many files it is reached. One that has the name of an attribute of the same file is
    not seen.
    """
    where: dict[str, set[str]] = {}
    for file, tree in trees.items():
        defined = set(_defined(tree))
        for name in _uses(tree):
            if name not in defined:
                where.setdefault(name, set()).add(file)
    return where


def _uses(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not _is_self(node.value):
            if node.attr not in NAMED_TUPLE and ast.unparse(node) not in DOCUMENTED:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wireline"):
            modules = SOURCE.parent.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                if is_private(alias.name) and not any(
                    path.exists() for path in (modules / alias.name, modules / f"{alias.name}.py")
                ):
                    yield alias.name


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr
        elif isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == "__slots__" for each in node.targets
        ):
            yield from (each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant))


def of_the_source() -> Iterator[Measure]:
    """Measure every file below ``src/wireline``."""
    trees = {
        str(file.relative_to(SOURCE)): ast.parse(file.read_text()) for file in sorted(SOURCE.rglob("*.py"))
    }
    found = [(f"{file}: {name}", node) for file, tree in trees.items() for name, node in functions(tree)]
    hooks = [name for name, node in found if only_raises(node)]
    yield Measure("hooks that only raise", len(hooks), hooks)
    yield from of_attributes(reached(trees))
    many = [f"{name}: {count}" for name, node in found if (count := branches(node)) > MAX_BRANCHES]
    yield Measure(f"functions over {MAX_BRANCHES} branches", len(many), many)
    long = [f"{name}: {count}" for name, node in found if (count := body_lines(node)) > MAX_LINES]
    yield Measure(f"functions over {MAX_LINES} lines", len(long), long)


def of_attributes(found: dict[str, set[str]]) -> Iterator[Measure]:
    """Compare the private attributes that are reached with those that have a reason."""
    foreign = {name: _keys(name, files) & set(FOREIGN) for name, files in found.items()}
    ours = {
        name: sorted(file for file in files if not _keys(name, {file}) & foreign[name])
        for name, files in found.items()
    }
    lines = {name: f"{name}: {', '.join(files)}" for name, files in sorted(ours.items()) if files}
    yield Measure("private attributes reached across files", len(lines), list(lines.values()))
    without = [line for name, line in lines.items() if name not in REACHED]
    yield Measure("private attributes reached without a reason", len(without), without)
    unused = sorted(set(REACHED) - set(lines)) + sorted(set(FOREIGN) - set().union(*foreign.values()))
    yield Measure("reasons for what is not reached", len(unused), unused)


def _keys(name: str, files: set[str]) -> set[str]:
    return {name} | {f"{Path(file).name}: {name}" for file in files}


# ------------------------------------------------------------------------------------------- the life of a line


class Files:
    """The files of the source that run in this thread inside ``with Files() as files``."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def __enter__(self) -> Files:
        sys.setprofile(self._called)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCE)):
            self.found.add(str(Path(frame.f_code.co_filename).relative_to(SOURCE)))


A_MOMENT = 0.05
"""Seconds for the reader to begin to wait: a line that is there already is read by fewer files."""

LINE = b"a line\r\n"


def of_a_line() -> Iterator[Measure]:
    """Count the files of which code runs in one ``recv_line`` that has to wait, on a connection that has read before.

    There is no timeout: a deadline is two files more in the blocking flavour and one in the async one.
    """
    for kind, title in (("tcp", "TCP"), ("tls", "TLS")):
        for flavour, files in (("blocking", blocking_line(kind)), ("async", asyncio.run(async_line(kind)))):
            assert files, "the source that ran is another one than what was measured"
            yield Measure(f"files of a recv_line: {flavour} {title}", len(files), sorted(files))


def blocking_line(kind: str) -> set[str]:
    """Read a line in this thread which another one sends."""
    from wireline.testing import pair

    with pair(kind) as (client, server):  # type: ignore[arg-type]
        for _ in range(3):
            server.send(LINE)
            client.recv_line()
        sender = threading.Timer(A_MOMENT, server.send, [LINE])
        sender.start()
        with Files() as files:
            client.recv_line()
        sender.join()
    return files.found


async def async_line(kind: str) -> set[str]:
    """Read a line in a task which another one sends."""
    from wireline.testing import async_pair

    async with await async_pair(kind) as (client, server):  # type: ignore[arg-type]
        for _ in range(3):
            await server.send(LINE)
            await client.recv_line()
        reading = asyncio.ensure_future(client.recv_line())
        with Files() as files:
            await asyncio.sleep(A_MOMENT)
        # In two parts: what the sender does is not a part of the read.
        await server.send(LINE)
        with files:
            await reading
    return files.found


# --------------------------------------------------------------------------------------------------- the report


def measures() -> Iterator[Measure]:
    """Take all measures of the tree that this file is in, also where another one is installed."""
    sys.path.insert(0, str(SOURCE.parent))
    from wireline.asyncnet import AsyncSocket
    from wireline.net import Socket

    yield from of_a_socket(Socket)
    yield from of_a_socket(AsyncSocket)
    yield from of_the_source()
    yield from of_a_line()


def verdict(name: str, value: int) -> tuple[bool, str]:
    """Compare a value with its limit, or with today's value where the limit is not met yet."""
    limit, today = LIMITS[name], NOT_YET.get(name)
    if today is None:
        return value <= limit, "" if value <= limit else f"above the limit of {limit}"
    if value <= limit:
        return True, f"limit {limit} is met: remove it from NOT_YET"
    if value > today:
        return False, f"worse than {today} (limit {limit}, not met yet)"
    better = f", better than {today}: lower it in NOT_YET" if value < today else ""
    return True, f"limit {limit}{better}"


def main(arguments: list[str] | None = None, taken: Callable[[], Iterator[Measure]] = measures) -> int:
    parser = argparse.ArgumentParser(description="Measure how hard the source is to enter.")
    parser.add_argument("--verbose", action="store_true", help="print what was counted")
    verbose = parser.parse_args(arguments).verbose
    passed = True
    for name, value, counted in taken():
        good, remark = verdict(name, value)
        passed = passed and good
        state = "FAILED" if not good else "not yet" if value > LIMITS[name] else "ok"
        print(f"{state:8}{value:4}  {name:45} {remark}".rstrip())
        if verbose or not good:
            for each in counted:
                print(f"              {each}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
