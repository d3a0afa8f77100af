"""What has no twin: ``wireline twin`` says where it is and what to write instead, all of it in one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_twin import lines_of, problems, twin
from wireline.cli import main
from wireline.cli.twin import _names

REFUSED = {
    "await asyncio.gather(f())": "the twin has no tasks: await the calls one after the other",
    "asyncio.create_task(f())": "the twin has no tasks",
    "async with asyncio.TaskGroup() as group: pass": "the twin has no tasks",
    "await asyncio.wait([f()])": "the twin has no tasks",
    "await asyncio.shield(f())": "the twin has no tasks",
    "await asyncio.wait_for(f(), 1)": "give the calls a timeout=, or all of them one wireline.Deadline",
    "async with asyncio.timeout(1): pass": "give the calls a timeout=",
    "loop = asyncio.get_running_loop()": "the twin has no event loop",
    "asyncio.Queue()": "a queue connects tasks",
    "asyncio.Barrier(2)": "threading.Barrier",
    "asyncio.run(f(), debug=True)": "only asyncio.run(CALL), without further arguments",
    "asyncio.to_thread": "only its call has one",
    "asyncio.Handle": "mark it with '# async:'",
    "await asyncio.open_connection()": "use wireline.asyncnet.dial or serve",
    "await asyncio.sleep(1, 2)": "one argument, the seconds",
    "x = getattr(asyncio, 'gather')": "mark the import with '# async:'",
    "f'{asyncio.gather}'": "the twin has no tasks",
    "inspect.isawaitable(x)": "the twin calls plain functions",
    "async with trio.open_nursery() as nursery: pass": "the twin has no tasks",
    "with trio.fail_after(1): pass": "give the calls a timeout=",
    "isinstance(x, Awaitable)": "has no twin here, where its result would be",
}
IMPORTS = "import asyncio, inspect\nimport trio  # async:\nfrom typing import Awaitable\n"


def test_each_has_a_place_and_says_what_to_write_instead() -> None:
    found = problems(IMPORTS + "".join(f"async def f():\n {line}\n" for line in REFUSED))
    assert len(found) == len(REFUSED)
    for number, (problem, advice) in enumerate(zip(found, REFUSED.values(), strict=True)):
        assert problem.startswith(f"a.py:{5 + 2 * number}:")
        assert advice in problem


def test_a_clause_for_cancellation_is_refused() -> None:
    code = "import asyncio\ntry: pass\nexcept (OSError, asyncio.CancelledError): pass\n"
    (problem,) = problems(code)
    assert problem.startswith(
        "a.py:3:18: asyncio.CancelledError has no twin: blocking calls are not cancelled"
    )


def test_adapters_of_other_libraries_are_refused() -> None:
    found = problems("import wireline.adapters.trio\nfrom wireline.adapters import anyio, httpcore\n")
    assert [problem.partition(" has")[0] for problem in found] == [
        "a.py:1:8: wireline.adapters.trio",
        "a.py:2:31: wireline.adapters.anyio",
    ]


def test_imports_are_refused_once() -> None:
    found = problems(
        "from asyncio import gather, sleep\nfrom anyio import create_task_group\nimport uvloop\ngather\n"
    )
    assert [problem.partition(": ")[0] for problem in found] == ["a.py:1:21", "a.py:2:19", "a.py:3:8"]


def test_a_star_is_refused_where_names_must_be_known() -> None:
    assert {"asyncio", "typing", "wireline.asyncnet"} <= _names.STAR_REFUSED
    for module in _names.STAR_REFUSED:
        assert problems(f"from {module} import *\n") == [
            f"a.py:1:1: the names of {module} must be known: write them instead of *"
        ]


def test_names_that_are_imported_in_lines_left_out_are_refused() -> None:
    assert problems("from a import b  # async:\nb()\n") == ["a.py:2:1: the twin has no import of b"]
    (problem,) = problems("from asyncio import gather  # async:\nx = gather\n")
    assert problem.startswith("a.py:2:5: asyncio.gather has no twin")
    (problem,) = problems("import asyncio  # async:\nasyncio.sleep(1)\n")
    assert problem.endswith("the twin needs the module time: write '# blocking: import time'")
    assert (
        twin("import asyncio  # blocking: import time\nasyncio.sleep(1)\n") == "import time\ntime.sleep(1)\n"
    )


COLLISIONS = {
    "from wireline.asyncnet import AsyncSocket\nclass Socket: pass\nx: AsyncSocket\n": "2:1: AsyncSocket is Socket",
    "import asyncio\nasync def f(time): await asyncio.sleep(time)\n": "2:13: asyncio.sleep is time",
    "from wireline.testing import async_pair\npair = async_pair()\n": "2:1: async_pair is pair",
    "from typing import AsyncIterator\nfrom a import Iterator\nx: AsyncIterator\n": "2:15: AsyncIterator is Iterator",
    "next = 1\nasync def f(): await anext(x)\n": "1:1: anext is next",
    "async def f(): await anext(x)\ndef next(): pass\n": "2:1: anext is next",
    "class Client: pass\nclass AsyncClient: pass\n": "1:1: AsyncClient is Client",
}


def test_a_name_that_would_be_another_one_is_refused() -> None:
    for code, expected in COLLISIONS.items():
        (problem,) = problems(code, {"AsyncClient": "Client"})
        assert problem.startswith(f"a.py:{expected} in the twin, and this is another ")


def test_a_method_may_have_the_name_of_a_function_that_is_built_in() -> None:
    made = twin("class A:\n    def next(self): pass\nasync def f(): await anext(x)\n")
    assert made == "class A:\n    def next(self): pass\ndef f(): next(x)\n"


def test_the_same_name_of_the_blocking_modules_is_no_other_one() -> None:
    code = """
    import asyncio
    import threading
    from collections.abc import AsyncIterable, AsyncIterator, Iterator
    from typing import Iterable
    from wireline.asyncnet import AsyncSocket, Server, StartingServer
    from wireline.net import Socket
    x: AsyncIterable[Iterable] | AsyncIterator[Socket] | Iterator[AsyncSocket] | Server | StartingServer
    lock = asyncio.Lock() or threading.Lock()
    """
    made = twin("\n".join(lines_of(code)) + "\n").splitlines()
    assert made[2:5] == [
        "from collections.abc import Iterable, Iterator",
        "from typing import Iterable",
        "from wireline.net import Server, Socket",
    ]


def test_a_class_with_both_forms_of_a_method_is_refused() -> None:
    code = """
    class A:
        def __enter__(self): pass
        async def __aenter__(self): pass
        def __await__(self): pass
        def close(self): pass
        async def aclose(self): pass  # async:
    """
    found = problems("\n".join(lines_of(code)) + "\n")
    assert [each.partition(",")[0] for each in found] == [
        "a.py:3:5: __aenter__ is __enter__ in the twin",
        "a.py:4:5: __await__ has no twin: mark the method with '# async:'",
    ]


NO_PROGRAMS = {
    b"async def f(:\n": "1:13: this is no Python: ",
    b"x = 1\nasync lambda: 1\n": "2:7: this is no Python: ",
    b"await f()\n": "1:1: this is no Python: 'await' outside function",
    b"x = '\xff'\n": "1:6: byte 0xff is not UTF-8: save the file as UTF-8",
    b"x = 1\ny = '\xff'\n": "2:6: byte 0xff is not UTF-8",
    b"# coding: latin-1\nx = 1\n": "1:1: the file says that it is latin-1: save it as UTF-8",
    b"x = 1\0\n": "this is no Python: ",
    b"x = " + b"-" * 100_000 + b"1\n": "this is no Python: ",
}


def test_what_is_no_program_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.py"
    for data, expected in NO_PROGRAMS.items():
        source.write_bytes(data)
        assert main(["twin", str(source), str(tmp_path / "b.py")]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"{source}:")
        assert expected in err
        assert err.endswith("wireline: 1 thing has no twin, see above; nothing was written\n")
        assert list(tmp_path.iterdir()) == [source]


def test_all_problems_of_all_files_are_reported_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "aio"
    package.mkdir()
    (package / "a.py").write_text("import asyncio\nasyncio.gather()\nasyncio.wait()\n")
    (package / "b.py").write_text("x = 1\n")
    (package / "c.py").write_text("x = (\n")
    assert main(["twin", str(package), str(tmp_path / "sync")]) == 1
    *found, last = capsys.readouterr().err.splitlines()
    assert [line.rpartition("/")[2].partition(": ")[0] for line in found] == [
        "a.py:2:1",
        "a.py:3:1",
        "c.py:1:5",
    ]
    assert last == "wireline: 3 things have no twin, see above; nothing was written"
    assert not (tmp_path / "sync").exists()
