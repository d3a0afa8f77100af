"""What ``wireline twin`` makes of the lines of a program: in each table the async code, and what it becomes."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

import wireline
from wireline import asyncnet, net
from wireline.cli.twin import _header, _names, _python
from wireline.cli.twin._context import Module
from wireline.cli.twin._convert import convert
from wireline.cli.twin._source import ProblemsFound

HERE = Module("mine.aio.part", "mine.sync.part", "mine.aio", beside=True, files={"part_async.py": "part.py"})


def twin(code: str, renames: Mapping[str, str] | None = None, module: Module = HERE) -> str:
    """The twin of some lines. Four free lines above them take the comment at the top."""
    text = convert("\n" * 4 + code, "a.py", "a.py", module, renames or {})
    head, found, made = text.partition("# fmt: off\n")
    assert found
    assert head.count("\n") == 3
    return made


def lines_of(code: str) -> list[str]:
    return textwrap.dedent(code).strip("\n").split("\n")


def check(table: str, imports: str = "", renames: Mapping[str, str] | None = None) -> None:
    """Each row ``async code => blocking code`` is a line in a function."""
    rows = [row.split(" => ") for row in lines_of(table)]
    source = "".join(f"    {row[0]}\n" for row in rows)
    made = twin(f"{imports}async def f():\n{source}    pass\n", renames)
    body = made[made.index("def f():\n") + 9 :].split("\n")
    assert [line.strip() for line in body[: len(rows)]] == [row[-1].strip() for row in rows]


def problems(code: str, renames: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ProblemsFound) as caught:
        twin(code, renames)
    return [str(each._replace(line=each.line - 4)) for each in caught.value.problems]


def test_await_and_async_are_removed() -> None:
    check(
        """
        await f() => f()
        await f() ; await g() => f() ; g()
        await(f()) => (f())
        return(await f()) => return(f())
        return (await f()).x => return f().x
        x = -await f() ** 2 => x = -f() ** 2
        x = (await y)if z else 0 => x = (y)if z else 0
        x = [await y async for y in z if await y] => x = [y for y in z if y]
        x = {await a: await b async for a, b in z} => x = {a: b for a, b in z}
        x = (await y async for y in z) => x = (y for y in z)
        async for x in y: await x => for x in y: x
        async with a as b, await c() as d: pass => with a as b, c() as d: pass
        async with (await a()) as b: pass => with a() as b: pass
        if (x := await f()) and not (await g()).y: pass => if (x := f()) and not g().y: pass
        x = await f()if await g()else await h() => x = f()if g()else h()
        print (await f(), *(await g())) => print (f(), *g())
        x[await f()] = (await g())[await h()] => x[f()] = g()[h()]
        async def g(): return await f() => def g(): return f()
        """
    )


def test_other_words_stay() -> None:
    check(
        """
        async_thing = awaited = "await async with AsyncSocket"
        x = b"AsyncSocket", 'await', \"\"\"async def\"\"\"
        x.async_thing(await_=1)
        y = rf"{{await}} {awaited!r:>{async_thing}}"
        """
    )


def test_in_strings_only_expressions_change() -> None:
    check(
        """
        x = f"{await a!r} {{await b}} {await c:{await d}.{e}} await" => x = f"{a!r} {{await b}} {c:{d}.{e}} await"
        x = f'{await a=}' "await" rf'\\{await a}' => x = f'{a=}' "await" rf'\\{a}'
        x = f"{f'{await a}' + 'await'}" => x = f"{f'{a}' + 'await'}"
        x = f"{d['}']}{await a != await b}{(lambda: 1)()}" => x = f"{d['}']}{a != b}{(lambda: 1)()}"
        x = f'{await a!r:>{await b}}{await c!s}{d}' => x = f'{a!r:>{b}}{c!s}{d}'
        x = f"\\N{DIGIT ONE}{await a}\\\\{await b}" => x = f"\\N{DIGIT ONE}{a}\\\\{b}"
        """
    )


def test_the_expressions_of_a_string() -> None:
    """Python 3.12 accepts more of them than 3.11."""
    table = {
        'f"{f"{x}"} {y}"': ['f"{x}"', "y"],
        "f'{x!r}{y:{z}}{ {1: 2}[1] }'": ["x", "y", "z", " {1: 2}[1]"],
        'f"""{\n x # }\n}"""': ["\n x # }"],
        '"{x}"': [],
    }
    for literal, expected in table.items():
        fields = _python.replacement_fields(literal)
        assert [literal[start:end] for start, end in fields] == expected


def test_code_of_several_lines_keeps_its_lines() -> None:
    source = """
    async def f():
        x = (
            await
            g(a,  # why
              await h())
        )
        await \\
            g()
        async with (
            a as b,
            await c(),
        ):
            y = rf'''
            {await g()} await
            {
                await h()
            }'''
        r = await asyncio.to_thread(
            g,
            *a,
        )
        match (await g()):
            case [AsyncSocket(), *_]: return await h()
    """
    expected = """
    def f():
        x = (

            g(a,  # why
              h())
        )
        \\
            g()
        with (
            a as b,
            c(),
        ):
            y = rf'''
            {g()} await
            {
                h()
            }'''
        r = (
            g)(
            *a,
        )
        match (g()):
            case [Socket(), *_]: return h()
    """
    made = twin("import asyncio\n" + "\n".join(lines_of(source)) + "\n")
    assert made == "\n" + "\n".join(lines_of(expected)) + "\n"


def test_names_of_the_library() -> None:
    imports = """\
import wireline.asyncnet
import wireline.asyncnet as socks
from wireline import asyncnet, tls
from wireline.asyncnet import AsyncSocket, Server, StartingServer, dial
from wireline.testing import AsyncPair, async_pair
"""
    made = twin(imports + "__all__ = ['AsyncSocket', 'async_pair']\n").splitlines()
    assert made == [
        "import wireline.net",
        "import wireline.net as socks",
        "from wireline import net, tls",
        "from wireline.net import Server, Socket, dial",
        "from wireline.testing import Pair, pair",
        "__all__ = ['Socket', 'pair']",
    ]
    check(
        """
        x: AsyncSocket = AsyncSocket() => x: Socket = Socket()
        x = wireline.asyncnet.AsyncSocket => x = wireline.net.Socket
        x = await asyncnet.dial(1), socks.StartingServer => x = net.dial(1), socks.Server
        x = cast("AsyncSocket", y) => x = cast("Socket", y)
        await context.wrap_connected_async(x) => context.wrap_connected_socket(x)
        """,
        imports,
    )


def test_every_name_of_the_async_flavour_has_a_twin_or_is_refused() -> None:
    for name in asyncnet.__all__:
        if name in _names.ONLY_ASYNC:
            assert problems(f"from wireline.asyncnet import {name}\n")
        else:
            made = twin(f"from wireline.asyncnet import {name}\n")
            assert made.removeprefix("from wireline.net import ").strip() in net.__all__


def test_a_name_that_only_the_async_flavour_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _names.blocking_name("as_streams", ["as_socket", "dial"]) is None
    monkeypatch.setattr(_names, "ONLY_ASYNC", frozenset({"as_streams"}))
    said = "wireline.asyncnet.as_streams has no twin: wireline.net has nothing of this kind; mark it with '# async:'"
    assert problems("from wireline.asyncnet import as_streams\n") == [f"a.py:1:31: {said}"]
    assert problems("from wireline import asyncnet\nasyncnet.as_streams(1)\n") == [f"a.py:2:1: {said}"]


def test_names_of_the_standard_library() -> None:
    imports = """\
import collections.abc
import contextlib
import typing as t
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any
"""
    check(
        """
        x: AsyncIterator[int] = await anext(aiter(y), None) => x: Iterator[int] = next(iter(y), None)
        x: AsyncGenerator[int, None] => x: Generator[int, None, None]
        x: "t.AsyncGenerator[int, t.AsyncIterator]" => x: "t.Generator[int, t.Iterator, None]"
        x = Callable[[int], Awaitable[None]] => x = Callable[[int], None]
        x = Callable[[], Coroutine[Any, Any, AsyncIterator[int]]] => x = Callable[[], Iterator[int]]
        x: t.Literal["AsyncIterator", "await"] => x: t.Literal["AsyncIterator", "await"]
        x: Awaitable | t.Awaitable[int] => x: object | int
        x: "Awaitable[AsyncIterator[int]] | None" => x: "Iterator[int] | None"
        async with aclosing(y) as x, AsyncExitStack() as z: pass => with closing(y) as x, ExitStack() as z: pass
        x = hasattr(y, "aclose"), "aclose" => x = hasattr(y, "close"), "aclose"
        x = getattr(y, "__aenter__")() => x = getattr(y, "__enter__")()
        await z.enter_async_context(y) => z.enter_context(y)
        await y.aclose(); await y.asend(1); await y.athrow(E) => y.close(); y.send(1); y.throw(E)
        raise StopAsyncIteration => raise StopIteration
        @contextlib.asynccontextmanager => @contextlib.contextmanager
        async def g(x: t.AsyncContextManager) -> Awaitable[int]: pass => def g(x: t.ContextManager) -> int: pass
        """,
        imports,
    )
    made = twin(
        imports + "x: Awaitable[Any]\n@asynccontextmanager\nasync def f() -> AsyncIterator[Any]: yield\n"
    )
    assert made.splitlines()[3:6] == [
        "from collections.abc import Callable, Coroutine, Generator, Iterator",
        "from contextlib import ExitStack, closing, contextmanager",
        "from typing import Any",
    ]


def test_types_in_comments_and_in_aliases() -> None:
    imports = "import typing\nfrom typing import AsyncIterator, Awaitable, Callable\n"
    check(
        """
        x = y  # type: AsyncIterator[int] => x = y  # type: Iterator[int]
        def g(x):  # type: (Awaitable[int]) -> AsyncSocket => def g(x):  # type: (int) -> Socket
         pass  # type: ignore[misc]
        X = Callable[..., Awaitable] => X = Callable[..., object]
        X = typing.Callable[[AsyncIterator], typing.Awaitable] => X = typing.Callable[[Iterator], object]
        """,
        imports,
    )
    if sys.version_info >= (3, 12):
        check("type X = Awaitable | Awaitable[int] => type X = object | int", imports)


def test_special_methods() -> None:
    source = """
    class A:
        async def __aenter__(self): return await super().__aenter__()
        async def __aexit__(self, *error): await self.aclose()
        def __aiter__(self): return self
        async def __anext__(self): raise StopAsyncIteration
        async def aclose(self): pass
    """
    expected = """
    class A:
        def __enter__(self): return super().__enter__()
        def __exit__(self, *error): self.close()
        def __iter__(self): return self
        def __next__(self): raise StopIteration
        def close(self): pass
    """
    assert twin("\n".join(lines_of(source)) + "\n") == "\n".join(lines_of(expected)) + "\n"


def test_what_asyncio_and_the_blocking_modules_share() -> None:
    made = twin(
        """\
import asyncio, signal
import sys
lock: asyncio.Lock = asyncio.Lock()
event = asyncio.Event(), asyncio.Condition(lock), asyncio.Semaphore(2), asyncio.BoundedSemaphore(3)
async def main():
    async with lock: await asyncio.sleep(1)
    try: await asyncio.to_thread(print, 1, end="")
    except asyncio.TimeoutError: pass
asyncio.run(main())
print(asyncio.run(
    main(),
))
"""
    )
    expected = """\
import threading, time, signal
import sys
lock: threading.Lock = threading.Lock()
event = threading.Event(), threading.Condition(lock), threading.Semaphore(2), threading.BoundedSemaphore(3)
def main():
    with lock: time.sleep(1)
    try: print(1, end="")
    except TimeoutError: pass
main()
print((
    main()
))
"""
    assert made == expected


@pytest.mark.parametrize("loop", ["anyio", "trio"])
def test_code_that_runs_on_both_loops_has_a_twin(loop: str) -> None:
    made = twin(
        f"""\
import {loop}
from {loop} import sleep
from wireline.asyncnet import serve
class Store:
    turn = {loop}.Lock()
    async def get(self):
        async with self.turn: await {loop}.sleep(1); await sleep(2)
async def main(port):
    async with serve(print, port) as server: await server.wait()
{loop}.run(main, 7)
"""
    )
    expected = """\
import threading, time
from time import sleep
from wireline.net import serve
class Store:
    turn = threading.Lock()
    def get(self):
        with self.turn: time.sleep(1); sleep(2)
def main(port):
    with serve(print, port) as server: server.wait()
main(7)
"""
    assert made == expected


IMPORTS = {
    "import asyncio\nasyncio.run(f())\n": "\nf()\n",
    "import anyio\nanyio.run(f)\n": "\nf()\n",
    "from trio import run, sleep\nrun(f, 1)\nsleep(1)\n": "from time import sleep\nf(1)\nsleep(1)\n",
    "import asyncio as a\na.sleep(1)\n": "import time\ntime.sleep(1)\n",
    "import time\nimport asyncio\nasyncio.sleep(time.time())\n": "import time\n\ntime.sleep(time.time())\n",
    "from asyncio import Lock as L, sleep\nL, sleep\n": (
        "from threading import Lock as L; from time import sleep\nL, sleep\n"
    ),
    "from asyncio import (\n    Event,\n    Lock,\n)\nEvent, Lock\n": (
        "from threading import Event, Lock\n\n\n\nEvent, Lock\n"
    ),
    "import asyncio\n(asyncio\n    .sleep)(1)\n": "import time\n(time.sleep\n)(1)\n",
    "from asyncio import run, sleep\nrun(sleep(1))\n": "from time import sleep\nsleep(1)\n",
    "from asyncio import run\nrun(f())\n": "\nf()\n",
    "from asyncio import TimeoutError\nTimeoutError\n": "\nTimeoutError\n",
    "from asyncio import TimeoutError as T\nT\n": "from builtins import TimeoutError as T\nT\n",
    "def f():\n    import asyncio  # noqa\n    asyncio.run(g())\n": "def f():\n\n    g()\n",
    "if x:\n    from a import b\n    import asyncio\nasyncio.run(b())\n": "if x:\n    from a import b\n\nb()\n",
    "if x:\n    import asyncio\nasyncio.run(f())\n": "if x:\n    pass\nf()\n",
    "import asyncio; x = 1\nasyncio.run(f())\n": "pass; x = 1\nf()\n",
    "from typing import (\n    Any,\n    Awaitable,\n    List,\n)\nx: Awaitable[List[Any]]\n": (
        "from typing import (\n    Any,\n    List,\n\n)\nx: List[Any]\n"
    ),
    "from a import B, c\nB(c)  # async:\nx = 1  # type: B\n": "from a import B\n\nx = 1  # type: B\n",
    "from a import B, c\nB(c)  # async:\nx = 'B | None'\n": "from a import B\n\nx = 'B | None'\n",
    "from a import B, c\nB(c)  # async:\nx = 'the B'\n": "\n\nx = 'the B'\n",
    "from a import b, AsyncSocket, c\nx = b, AsyncSocket, c\n": "from a import b, Socket, c\nx = b, Socket, c\n",
    "from a import AsyncSocket as AsyncSocket, b1, b2, b10\n": "from a import Socket as Socket, b1, b2, b10\n",
}


def test_imports_have_what_the_twin_needs() -> None:
    for source, expected in IMPORTS.items():
        assert (source, twin(source)) == (source, expected)


def test_the_package_has_another_name() -> None:
    made = twin(
        """\
import mine.aio.part
import mine.aio.part as part
from mine.aio.part import thing
from mine.aio import part as other
from mine.aio.part.deep import x
from .part import y
from . import z
from .. import errors
x = mine.aio.part.f
""",
        module=HERE._replace(package="mine.aio", twin="mine.sync"),
    )
    assert made == (
        """\
import mine.sync.part
import mine.sync.part as part
from mine.sync.part import thing
from mine.sync import part as other
from mine.sync.part.deep import x
from .part import y
from . import z
from .. import errors
x = mine.sync.part.f
"""
    )
    package = HERE._replace(package="mine.aio", twin="mine.sync")
    assert twin("from ..aio.part import x\nfrom mine import aio\n", module=package) == (
        "from ..sync.part import x\nfrom mine import sync as aio\n"
    )
    with pytest.raises(ProblemsFound, match="write it without dots"):
        twin("from ..errors import E\n", module=package._replace(beside=False))


def test_names_of_ones_own() -> None:
    source = '''\
class AsyncClient:
    """An AsyncClient, of mine.aio.part: see part_async.py, not AsyncClients."""
# AsyncClient of wireline.asyncnet, ~wireline.asyncnet.AsyncSocket, x.part_async.py, your-wireline.asyncnet
from mine.aio.part import AsyncClient, x
from .other import AsyncClient as Other
x = f"{AsyncClient} AsyncClient", "AsyncClient"
'''
    made = '''\
class Client:
    """An Client, of mine.sync.part: see part.py, not AsyncClients."""
# Client of wireline.net, ~wireline.net.Socket, x.part_async.py, your-wireline.asyncnet
from mine.sync.part import Client, x
from .other import Client as Other
x = f"{Client} AsyncClient", "Client"
'''
    assert twin(source, {"AsyncClient": "Client"}) == made


def test_code_in_docstrings() -> None:
    source = """
    async def f():
        '''Use await x, async with y::

            async with await f() as sock:
                await sock.send(b"x")

        This is prose again: await x.

        >>> [await y async for x in z]
        ... await x
        ```python
        await x
        ```
        await x
        '''
    """
    expected = """
    def f():
        '''Use await x, async with y::

            with f() as sock:
                sock.send(b"x")

        This is prose again: await x.

        >>> [y for x in z]
        ... x
        ```python
        x
        ```
        await x
        '''
    """
    assert twin("\n".join(lines_of(source)) + "\n") == "\n".join(lines_of(expected)) + "\n"


# The comments.


def test_comments_say_what_one_of_the_two_has() -> None:
    source = """
    import asyncio  # async: for gather
    # blocking: import threading
    # async: This is about tasks.
    class A:
        @decorator
        async def many(  # kept
            self, *calls: object
        ) -> None:  # async: there is no gather
            await asyncio.gather(*calls)

        # blocking: def many(self, *calls):
        # blocking:     for call in calls:
        # blocking:         call()
        async def one(self):
            await self.many(
                1,
                2,  # async:
                3,  # blocking: 4,
            )
            try:
                await f()
            except asyncio.CancelledError:  # blocking: except KeyboardInterrupt:
                raise
            async with asyncio.timeout(1):  # async:
                await g()
            x = await h()  # type: ignore[misc]  # blocking: x = threading.Lock()
            if x:
                await asyncio.gather(
                    x
                )  # async:
            y = [
                1,
            ]  # blocking: y = 2
        def none(self):
            import asyncio  # async:
    """
    expected = """

    import threading

    class A:






        def many(self, *calls):
            for call in calls:
                call()
        def one(self):
            self.many(
                1,

                4,
            )
            try:
                f()
            except KeyboardInterrupt:
                raise


            x = threading.Lock()
            if x:
                pass


            y = 2


        def none(self):
            pass
    """
    made = twin("\n".join(lines_of(source)) + "\n").split("\n")
    assert made == ["", *lines_of(expected), ""]


def test_where_a_comment_ends() -> None:
    table = {
        "async def f():  # async:\n    await g()\n# blocking: x = 1\ny\n": "\n\nx = 1\ny\n",
        "if x:\n    f()  # async:\n    # blocking: g()\nelse:\n    y\n": "if x:\n\n    g()\nelse:\n    y\n",
        "x = '# async: no comment'\n": "x = '# async: no comment'\n",
        "x  #async: a\ny  #  blocking: z\n": "\nz\n",
        "# blocking:\n": "\n",
    }
    for source, expected in table.items():
        assert (source, twin(source)) == (source, expected)


def test_a_comment_that_is_nearly_one_is_refused() -> None:
    assert problems("x  # blocking:\n") == [
        "a.py:1:4: write the code of the twin after '# blocking:', or '# async:' if it has none"
    ]
    sentence = "with a colon this comment is a marker: write '# async:' or '# blocking: CODE'"
    assert problems("x  # async\n# blocking\n# async sockets\n") == [
        f"a.py:1:4: {sentence}",
        f"a.py:2:1: {sentence}",
    ]


def test_a_twin_that_is_no_python_is_refused_with_the_line() -> None:
    table = {
        "x = 1\n# blocking: await f()\n": "a.py:2:",
        "try:  # async:\n    x\nfinally:\n    y\n": "a.py:3:",
        "# blocking:     x = (\n": "a.py:1:",
    }
    for source, place in table.items():
        (problem,) = problems(source)
        assert problem.startswith(place)
        assert "in the twin, " in problem


# The comment at the top, and the numbers of the lines.


def test_the_lines_below_the_imports_keep_their_numbers() -> None:
    source = '''\
#!/usr/bin/env python3
# -*- coding: utf-8 -*-
"""Text.

More.
"""

from __future__ import annotations

import asyncio
import sys

from wireline.asyncnet import dial


async def f():
    await dial(1)
'''
    made = convert(source, "a.py", "../a.py", HERE, {}).split("\n")
    assert made[:6] == [
        "#!/usr/bin/env python3",
        "# -*- coding: utf-8 -*-",
        "# Made by 'wireline twin' from ../a.py: edit that file.",
        "# From line 13 on, line N here is line N there.",
        "# isort: skip_file",
        "# fmt: off",
    ]
    assert _header.is_made("\n".join(made))
    assert made[12:] == ["from wireline.net import dial", "", "", "def f():", "    dial(1)", ""]
    assert len(made) == source.count("\n") + 1


def test_the_comment_at_the_top_says_which_line_is_which() -> None:
    table = {
        "": ("5 on, line N here is line N - 4", ""),
        "x = 1": ("5 on, line N here is line N - 4", "x = 1"),
        "x = '''\n\n'''\n": ("5 on, line N here is line N - 4", "x = '''\n\n'''\n"),
        "# async: a\n# async: b\n\n\nx = 1\n": ("5 on, line N here is line N", "x = 1\n"),
        "x = 1\n\n\ny = 2\n": ("6 on, line N here is line N - 2", "x = 1\ny = 2\n"),
    }
    for source, (which, there) in table.items():
        made = convert(source, "a.py", "a.py", HERE, {})
        assert made.split("\n")[1] == f"# From line {which} there."
        assert made.partition("# fmt: off\n")[2] == there


def test_a_file_without_the_comment_is_no_twin() -> None:
    for text in ("", "x\n" * 9, "\n" * 7 + "# Made by 'wireline twin' from a.py: edit that file.\n"):
        assert not _header.is_made(text)


def test_code_without_anything_async_is_its_own_twin() -> None:
    for path in Path(wireline.__file__).parent.glob("_core/*.py"):
        text = path.read_text(encoding="utf-8")
        made = convert(text, path.name, path.name, HERE, {})
        assert [line for line in made.split("\n")[4:] if line] == [line for line in text.split("\n") if line]
