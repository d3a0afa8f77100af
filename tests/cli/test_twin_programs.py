"""Whole programs and their twins: they do the same, and what has nothing to do with waiting is the same text."""

from __future__ import annotations

import importlib
import io
import re
import sys
import tokenize
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.cases import few_in_sample
from tests.cli.test_twin import HERE, twin
from wireline.cli import main
from wireline.cli.twin import _names
from wireline.cli.twin._convert import convert
from wireline.cli.twin._header import is_made
from wireline.cli.twin._source import ProblemsFound
from wireline.net import Server, Socket, serve

ROOT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------------------------- programs that hypothesis composes

PROLOGUE = """
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

trace = []

async def inc(value):
    trace.append(value)
    return value + 1

async def numbers(end) -> AsyncIterator[int]:
    for number in range(end % 4):
        yield await inc(number)

@asynccontextmanager
async def entered(value) -> AsyncIterator[int]:
    trace.append(("enter", value))
    try:
        yield value
    finally:
        trace.append(("leave", await inc(value)))

class Box:
    def __init__(self, value): self.value = value
    async def get(self): return await inc(self.value)
    async def __aenter__(self): return self
    async def __aexit__(self, *error): trace.append(error[0])
    def __aiter__(self): self.left = 3; return self
    async def __anext__(self):
        self.left -= 1
        if self.left < 0: raise StopAsyncIteration
        return await inc(self.left)
"""


def combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = [
        "await inc({})",
        "(await inc({}))",
        "-await inc({})",
        "(await Box({}).get())",
        "len(f'{{await inc({})!r:>{{await inc(3)}}}} {{{{await}}}}')",
        "sum([x async for x in numbers({})])",
        "sum([await inc(x) async for x in Box({}) if await inc(x) % 2])",
        "len({{x: await inc(x) async for x in numbers({})}})",
        "await anext(aiter(Box({})))",
        "(y := await inc({}))",
        "(lambda z: z + 1)(await inc({}))",
    ]
    two = ["(await inc({}) + {})", "(await inc({}) if await inc({}) % 2 else 5)", "[{}, await inc({})][1]"]
    return st.one_of(
        st.builds(str.format, st.sampled_from(one), inner),
        st.builds(str.format, st.sampled_from(two), inner, inner),
    )


EXPRESSIONS = st.recursive(st.sampled_from(["0", "1", "7", "y"]), combine, max_leaves=5)
STATEMENTS = st.builds(
    str.format,
    st.sampled_from(
        [
            "y = {}",
            "trace.append({})",
            "async for y in numbers({}): trace.append(await inc(y))",
            "async for y in Box({}): await inc(y)",
            "async with entered({}) as y, Box(y) as b: trace.append(await b.get())",
            "if {}: trace.append(await inc(y))",
            "while y < 3: y = (await inc(y)) + abs({})",
            "await asyncio.sleep(0 * {})",
            "await asyncio.to_thread(trace.append, {})",
            "async def g(y=2): return {}\n    y = await g()",
            "try: raise OSError\n    except OSError: y = {}\n    finally: await inc(y)",
        ]
    ),
    EXPRESSIONS,
)


def compiles(code: str) -> bool:
    try:
        return bool(compile(code, "program", "exec"))
    except SyntaxError:
        return False


@settings(max_examples=50)
@given(st.lists(STATEMENTS, min_size=1, max_size=6))
def test_a_program_and_its_twin_do_the_same(statements: list[str]) -> None:
    body = "".join(f"    {statement}\n" for statement in statements)
    # `:=` is not possible in the iterable of a comprehension, nor, before Python 3.12, the same quotes in a string.
    assume(compiles(f"async def main():\n{body}"))
    source = f"{PROLOGUE}async def main():\n    y = 1\n{body}    return y\nresult = asyncio.run(main())\n"
    results = []
    for code in (source, twin(source)):
        namespace: dict[str, Any] = {}
        exec(compile(code, "program", "exec"), namespace)
        results.append((namespace["result"], namespace["trace"]))
    assert results[0] == results[1]


# ------------------------------------------------------------------------------------------- the programs that are here

_RENAMED = {
    "AsyncSocket": "Socket",
    "StartingServer": "Server",
    "async_pair": "pair",
    "AsyncPair": "Pair",
    "asyncnet": "net",
    "wrap_connected_async": "wrap_connected_socket",
    "AsyncIterator": "Iterator",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "StopAsyncIteration": "StopIteration",
    "asynccontextmanager": "contextmanager",
    "anext": "next",
    "AsyncGenerator": "Generator",
    "aclose": "close",
    "aclosing": "closing",
    "aiter": "iter",
    "AsyncExitStack": "ExitStack",
    "enter_async_context": "enter_context",
    "push_async_callback": "callback",
    "async": "",
    "await": "",
    "AsyncIterable": "Iterable",
    "AbstractAsyncContextManager": "AbstractContextManager",
}
_ELSEWHERE = re.compile(
    r"\b(?:asyncio|anyio|trio)\b|\bimport\b|\b(?:Awaitable|Coroutine|AsyncGenerator)\b|# (?:async|blocking):"
)

PLACES = {"examples": 8, "tests/scenarios": 15, "tests/torture": 5}
"""Directories with async code, each with a number of files that it has at least."""


def async_files(place: str) -> Iterator[Path]:
    for path in sorted((ROOT / place).rglob("*.py")):
        if re.search(r"^ *async (?:def|for|with) ", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield path


def words(line: str) -> str:
    """A line as its twin should be, without spaces, parentheses and the words in its strings."""
    renamed = re.sub(r"\w+", lambda word: _RENAMED.get(word[0], word[0]), line)
    return re.sub(r"[\s()]", "", renamed)


def mapped(text: str) -> Iterator[str]:
    """The lines of a twin from the one on from which they have the numbers of the source."""
    found = re.search(r"^# From line (\d+) on, line N here is line N there\.$", text, re.MULTILINE)
    assert found
    return iter(text.split("\n")[int(found[1]) - 1 :])


@pytest.mark.parametrize("place", few_in_sample(PLACES, "examples"))
def test_lines_of_the_programs_that_are_here_differ_only_by_the_waiting(place: str) -> None:
    """Those with something that has no twin are refused, and nothing else happens to any of them."""
    refused, made = [], 0
    for path in async_files(place):
        source = path.read_text(encoding="utf-8")
        try:
            text = convert(source, str(path), path.name, HERE, {})
        except ProblemsFound as error:
            refused += error.problems
            continue
        made += 1
        compile(text, path.name, "exec", dont_inherit=True)
        after = list(mapped(text))
        before = source.split("\n")[-len(after) :]
        for ours, theirs in zip(before, after, strict=True):
            # Several lines of one import, or names of asyncio's: the tables of the other tests have those.
            if not _ELSEWHERE.search(ours) and theirs.strip():
                assert words(ours) == words(theirs), path
    assert made > 0
    assert made + len({problem.path for problem in refused}) >= PLACES[place]
    assert all(problem.sentence and not problem.sentence.startswith("in the twin, ") for problem in refused)


def test_comments_and_strings_stay() -> None:
    """Each token of the examples that is a comment or a string is in the twin, but for names of the library."""
    for path in ROOT.glob("examples/async_*.py"):
        source = path.read_text(encoding="utf-8")
        text = convert(source, path.name, path.name, HERE, {})
        assert Counter(texts(source)) - Counter(texts(text)) == Counter()


def texts(source: str) -> Iterator[str]:
    for each in tokenize.generate_tokens(io.StringIO(source).readline):
        is_marker = re.match(r"# (?:async:|blocking:|isort: |fmt: )", each.string)
        if each.type in (tokenize.COMMENT, tokenize.STRING) and not is_marker:
            yield words(each.string)


def test_the_blocking_examples_are_made_of_the_async_ones() -> None:
    """All that ``make twins`` makes, and nothing else says that it was made."""
    listed = re.findall(r"(async_\w+)\.py:(\w+)\.py", (ROOT / "Makefile").read_text(encoding="utf-8"))
    examples = ROOT / "examples"
    for source, made in listed:
        assert main(["twin", "--check", str(examples / f"{source}.py"), str(examples / f"{made}.py")]) == 0
    found = {path.stem for path in examples.glob("*.py") if is_made(path.read_text(encoding="utf-8"))}
    assert found == {made for _, made in listed}


def test_the_page_shows_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/howto/both-flavours.md").read_text(encoding="utf-8")
    source, _, made, *_, marked = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^wireline (twin .*)$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("store_async.py").write_text(source)
    assert main(commands[0].split()) == 0
    assert Path("store.py").read_text() == made
    assert twin(f"import asyncio\n{marked}").splitlines()[1:] == [
        "def get_all(stores, key):",
        "",
        "    values = []",
        "    for store in stores:",
        "        values.append(store.get(key))",
        "    return values",
    ]


def test_the_tables_of_the_page_say_what_the_command_does() -> None:
    page = (ROOT / "docs/howto/both-flavours.md").read_text(encoding="utf-8")
    known = {
        **_names.LIBRARY,
        **_names.MEMBERS,
        **_names.BUILTINS,
        _names.ASYNC_MODULE: _names.BLOCKING_MODULE,
    }
    for name, made in _names.STANDARD.items():
        known[name.rpartition(".")[2]] = known[name] = (
            made if name.startswith(_names.LOOPS) else made.rpartition(".")[2]
        )
    parts = re.split("## (?:Rewritten names|Names without a twin)", page)[1:]
    replaced, refused = (part.partition("\n## ")[0] for part in parts)
    compared = 0
    for cells in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|$", replaced, re.MULTILINE):
        left, right = (re.findall(r"`([\w.]+)(?:[\[(][^`]*)?`", cell) for cell in cells)
        for name, made in zip(left, right, strict=False) if len(left) == len(right) else ():
            assert known.get(name, made).removeprefix("wireline.testing.") == made, name
            compared += name in known
    assert compared > 25
    for cell in re.findall(r"^\| ([^|]*) \|", refused, re.MULTILINE):
        for name in re.findall(r"`((?:asyncio|inspect)\.\w+|[a-zA-Z]\w+)`", cell):
            assert _names.instead_of(name) or _names.instead_of(f"asyncio.{name}"), name


# ------------------------------------------------------------------------------ a package, its twin, and one server

CLIENT = '''\
# async: The twin of this file is made by `wireline twin`.
# async:
# async:
# async:
"""A client of a protocol of lines: ``AsyncClient``, of lineclient.aio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from wireline import EndOfStreamError
from wireline.asyncnet import AsyncSocket, dial

from .errors import Refused

__all__ = ["AsyncClient", "connected"]

OnNotice = Callable[[bytes], Awaitable[None]]


class AsyncClient:
    """One connection. An `AsyncClient` may be used by several callers: each waits for its turn."""

    def __init__(self, sock: AsyncSocket, on_notice: OnNotice | None = None) -> None:
        self._sock = sock
        self._turn = asyncio.Lock()
        self._on_notice = on_notice

    @classmethod
    async def connect(cls, host: str, port: int, on_notice: OnNotice | None = None) -> AsyncClient:
        return cls(await dial(host, port, timeout=5), on_notice)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Say goodbye, and close."""
        if not self._sock.is_closed:
            await self._sock.send(b"QUIT\\r\\n", timeout=5)
            self._sock.close()

    async def ask(self, question: str, timeout: float | None = 5) -> str:
        """Send a line and return the answer."""
        async with self._turn:
            await self._sock.send(f"ASK {question}\\r\\n".encode(), timeout=timeout)
            return await self._answer(timeout)

    async def count(self, end: int) -> AsyncIterator[int]:
        async with self._turn:
            await self._sock.send(b"COUNT %d\\r\\n" % end, timeout=5)
            while (line := await self._answer(5)) != ".":
                yield int(line)

    async def many(self, *questions: str) -> list[str]:
        """Ask all of them at the same time, each over a connection of its own."""
        clients = [await AsyncClient.connect(*self._sock.peer_addr) for _ in questions]
        pairs = zip(clients, questions, strict=True)
        answers = await asyncio.gather(*(client.ask(each) for client, each in pairs))  # async:
        # blocking: answers = [client.ask(each) for client, each in pairs]
        for client in clients:
            await client.aclose()
        return answers

    async def _answer(self, timeout: float | None) -> str:
        while (line := await self._sock.recv_line(timeout)).startswith(b"*"):
            if self._on_notice is not None:
                await self._on_notice(line)
        if not line:
            raise EndOfStreamError(1, b"")
        if line.startswith(b"-"):
            raise Refused(line.decode())
        return line.strip().decode()


@asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(host, port) as client:
        yield client


notices: list[bytes] = []
found: list[object] = [notices]


async def notice(line: bytes) -> None:
    notices.append(line)


async def main(host: str, port: int) -> None:
    """Use all of it."""
    global found
    async with connected(host, port) as client:
        found += [await client.ask("one"), [number async for number in client.count(3)]]
        found += [await client.many("a", "b"), f"{await client.ask('two')!r:>8}"]
        try:
            await client.ask("slow", timeout=0.05)
        except TimeoutError as error:
            found.append(type(error).__name__)
        found += [await client.ask("late"), await client._answer(5)]  # nothing was lost
    other = await AsyncClient.connect(host, port, notice)
    async with other:
        found.append(await other.ask("notice"))
        await anext(aiter(other.count(0)), None)
        await other.ask("no")


def run(host: str, port: int) -> None:
    asyncio.run(main(host, port))
'''


def answer(client: Socket, address: object) -> None:
    """Serve one client. The answer to ``slow`` is sent with the next one."""
    late = b""
    for line in client.lines(timeout=5):
        command, _, rest = line.decode().partition(" ")
        if command == "COUNT":
            client.send_many([*(b"%d\r\n" % number for number in range(int(rest))), b".\r\n"])
        elif rest == "slow":
            late = b"SLOW\r\n"
        elif command == "ASK":
            first = {"notice": b"*note\r\n", "no": b"-refused: "}.get(rest, b"")
            client.send(late + first + rest.upper().encode() + b"\r\n")
            late = b""


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answer, 0, "127.0.0.1") as running:
        yield running


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """The package ``lineclient.aio``, and its twin ``lineclient.blocking``."""
    package = tmp_path / "lineclient"
    (package / "aio").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "aio" / "__init__.py").write_text(
        "from lineclient.aio.client import AsyncClient as AsyncClient\n"
    )
    (package / "aio" / "client.py").write_text(CLIENT)
    (package / "aio" / "errors.py").write_text("class Refused(Exception): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--rename", "AsyncClient=Client", str(package / "aio"), str(package / "blocking")]
    assert main(["twin", *words]) == 0
    assert main(["twin", "--check", *words]) == 0
    yield (
        importlib.import_module("lineclient.aio.client"),
        importlib.import_module("lineclient.blocking.client"),
    )
    for name in [name for name in sys.modules if name.startswith("lineclient")]:
        del sys.modules[name]


def test_a_package_and_its_twin_talk_to_one_server(
    clients: tuple[ModuleType, ModuleType], server: Server
) -> None:
    """The tracebacks of the error at the end name the same lines, and these have the same numbers."""
    host, port = server.local_addr
    frames = []
    for module in clients:
        with pytest.raises(module.Refused, match="-refused: NO") as caught:
            module.run(host, port)
        found = [
            each
            for each in traceback.extract_tb(caught.value.__traceback__)
            if each.filename == module.__file__
        ]
        frames.append([(each.name, each.lineno, words(each.line or "")) for each in found])
    assert [name for name, _, _ in frames[1]] == ["run", "main", "ask", "_answer"]
    assert [line for _, line, _ in frames[0]] == [line for _, line, _ in frames[1]]
    assert frames[0][1:] == frames[1][1:]


def test_the_two_packages_do_the_same(clients: tuple[ModuleType, ModuleType], server: Server) -> None:
    expected = [
        [b"*note"],
        "ONE",
        [0, 1, 2],
        ["A", "B"],
        "   'TWO'",
        "SocketTimeout",
        "SLOW",
        "LATE",
        "NOTICE",
    ]
    for module in clients:
        with pytest.raises(module.Refused):
            module.run(*server.local_addr)
        assert module.found == expected


def test_the_twin_looks_as_if_it_were_written_by_hand(clients: tuple[ModuleType, ModuleType]) -> None:
    source, made = (Path(module.__file__ or "").read_text() for module in clients)
    lines = made.split("\n")
    assert lines[4] == '"""A client of a protocol of lines: ``Client``, of lineclient.blocking."""'
    assert len(lines) == len(source.split("\n"))
    assert "async" not in "".join(lines[6:]).replace("asyncio", "")
    assert "    def close(self) -> None:" in lines
    assert "        self._turn = threading.Lock()" in lines
    assert "from collections.abc import Callable, Iterator" in lines
    assert "OnNotice = Callable[[bytes], None]" in lines
    assert clients[1].__all__ == ["Client", "connected"]
